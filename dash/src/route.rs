//! From a request to its page.

use agent_gate_store::record::{Field, Record};
use agent_gate_store::{Error, Id, Reader};

use crate::http::{Request, Response};
use crate::pages::{exchange, index, message, websocket};
use crate::server::Site;
use crate::{body, guard, live};

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/app.js");
const ICON: &str = include_str!("assets/icon.svg");

/// What a target asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Index(index::View),
    Exchange(Id, u64),
    Message(Id, u64),
    Body(Id, Side),
    DecodedBody(Id, Side),
    ApiExchanges { after: u64, run: Option<Id> },
    ApiRuns,
    Asset(&'static str, &'static str),
}

/// Which body of an exchange; of its messages, the one at this position of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
    Message(u64),
}

/// Answers a request.
pub(crate) fn answer(request: &Request, site: &Site) -> Response {
    if let Err(refusal) = guard::check(request, site.address.port()) {
        return refusal;
    }
    let Some(route) = route(request.target()) else { return not_found(site) };
    match show(&route, site) {
        Ok(Some(response)) => response,
        Ok(None) => not_found(site),
        Err(error) => unreadable(&error, site),
    }
}

fn show(route: &Route, site: &Site) -> Result<Option<Response>, Error> {
    let open = || Reader::open(&site.layout);
    let response = match route {
        Route::Asset(content_type, text) => Response::new(200, content_type, text.as_bytes()),
        Route::Index(view) => html(200, index::page(&open()?, *view, &site.notices)?),
        Route::ApiRuns => json(index::runs_json(&open()?)?),
        Route::ApiExchanges { after, run } => match site.live.wait_past(*after) {
            Ok(()) => json(index::changes_json(&open()?, *after, *run)?),
            Err(live::Busy) => {
                Response::text(503, "too many pages are open").with("Retry-After", "5")
            }
        },
        Route::Exchange(id, after) => match exchange::page(&open()?, *id, *after, &site.notices)? {
            Some(page) => html(200, page),
            None => return Ok(None),
        },
        Route::Message(id, seq) => match websocket::page(&open()?, *id, *seq, &site.notices)? {
            Some(page) => html(200, page),
            None => return Ok(None),
        },
        Route::Body(id, side) => return download(&open()?, *id, *side),
        Route::DecodedBody(id, side) => return download_decoded(&open()?, *id, *side),
    };
    Ok(Some(response))
}

fn download(reader: &Reader, id: Id, side: Side) -> Result<Option<Response>, Error> {
    let Some((record, name)) = side_of(reader, id, side)? else { return Ok(None) };
    let Some(body) = record.body() else { return Ok(None) };
    let name = format!("{id}-{name}.bin");
    Ok(Some(Response::download(&name, reader.body(body)?, body.kept_bytes())))
}

fn download_decoded(reader: &Reader, id: Id, side: Side) -> Result<Option<Response>, Error> {
    let Some((record, name)) = side_of(reader, id, side)? else { return Ok(None) };
    let Some(body) = record.body() else { return Ok(None) };
    let Some(bytes) = body::decoded_bytes(body) else { return Ok(None) };
    let Some(decoded) = reader.decoded(body, fields_of(&record))? else { return Ok(None) };
    let name = format!("{id}-{name}-decoded.bin");
    Ok(Some(Response::download(&name, Box::new(decoded), bytes)))
}

/// The record of one side of an exchange, or of one of its messages, and what that is called.
fn side_of(
    reader: &Reader,
    id: Id,
    side: Side,
) -> Result<Option<(Record<'static>, String)>, Error> {
    let (record, name) = match side {
        Side::Request => (reader.exchange(id)?.and_then(|it| it.request), "request".to_owned()),
        Side::Response => (reader.exchange(id)?.and_then(|it| it.response), "response".to_owned()),
        Side::Message(seq) => (reader.message(id, seq)?, format!("message-{seq}")),
    };
    Ok(record.map(|record| (record, name)))
}

/// The fields of a record's head, as far as one came.
fn fields_of<'r>(record: &'r Record<'_>) -> &'r [Field<'r>] {
    match record {
        Record::Request(request) => &request.head.fields,
        Record::Response(response) => response.head.as_ref().map_or(&[], |head| &head.fields),
        _ => &[],
    }
}

fn html(status: u16, page: String) -> Response {
    Response::new(status, HTML, page.into_bytes())
}

fn json(text: String) -> Response {
    Response::new(200, JSON, text.into_bytes())
}

fn not_found(site: &Site) -> Response {
    let text = "There is no such page, or no such record any more.";
    html(404, message::page("Not found", text, &site.notices))
}

fn unreadable(error: &Error, site: &Site) -> Response {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    html(503, message::page("The records cannot be read", &text, &site.notices))
}

/// The route of an origin-form target; none for an unknown path or a malformed value.
fn route(target: &str) -> Option<Route> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<_> = path.strip_prefix('/')?.split('/').collect();
    Some(match parts[..] {
        [""] => {
            Route::Index(index::View { run: value(query, "run")?, before: value(query, "before")? })
        }
        ["exchange", id] => {
            Route::Exchange(id.parse().ok()?, value(query, "after")?.unwrap_or_default())
        }
        ["exchange", id, "message", seq] => Route::Message(id.parse().ok()?, seq.parse().ok()?),
        ["body", id, "request"] => Route::Body(id.parse().ok()?, Side::Request),
        ["body", id, "response"] => Route::Body(id.parse().ok()?, Side::Response),
        ["body", id, "message", seq] => {
            Route::Body(id.parse().ok()?, Side::Message(seq.parse().ok()?))
        }
        ["body", id, "request", "decoded"] => Route::DecodedBody(id.parse().ok()?, Side::Request),
        ["body", id, "response", "decoded"] => Route::DecodedBody(id.parse().ok()?, Side::Response),
        ["api", "exchanges"] => Route::ApiExchanges {
            after: value(query, "after")?.unwrap_or_default(),
            run: value(query, "run")?,
        },
        ["api", "runs"] => Route::ApiRuns,
        ["assets", "style.css"] => Route::Asset("text/css; charset=utf-8", STYLE),
        ["assets", "app.js"] => Route::Asset("text/javascript; charset=utf-8", SCRIPT),
        ["assets", "icon.svg"] | ["favicon.ico"] => Route::Asset("image/svg+xml", ICON),
        _ => return None,
    })
}

/// The value of that parameter: `Some(None)` when absent or empty, none when malformed. Ids and
/// numbers need no percent-decoding.
fn value<T: std::str::FromStr>(query: &str, name: &str) -> Option<Option<T>> {
    let found = query
        .split('&')
        .filter_map(|parameter| parameter.split_once('='))
        .find(|parameter| parameter.0 == name);
    match found {
        None | Some((_, "")) => Some(None),
        Some((_, value)) => value.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_their_routes() {
        let id = Id::new();
        let run = Some(id);
        let at = |text: &str| route(&text.replace("ID", &id.to_string()));
        assert_eq!(at("/"), Some(Route::Index(index::View { run: None, before: None })));
        assert_eq!(at("/?run=ID&x=1"), Some(Route::Index(index::View { run, before: None })));
        assert_eq!(
            at("/?before=ID&run="),
            Some(Route::Index(index::View { run: None, before: run }))
        );
        assert_eq!(at("/exchange/ID"), Some(Route::Exchange(id, 0)));
        assert_eq!(at("/exchange/ID?after=9"), Some(Route::Exchange(id, 9)));
        assert_eq!(at("/exchange/ID/message/7"), Some(Route::Message(id, 7)));
        assert_eq!(at("/body/ID/message/7"), Some(Route::Body(id, Side::Message(7))));
        assert_eq!(at("/body/ID/response"), Some(Route::Body(id, Side::Response)));
        assert_eq!(at("/body/ID/request/decoded"), Some(Route::DecodedBody(id, Side::Request)));
        assert_eq!(at("/api/exchanges"), Some(Route::ApiExchanges { after: 0, run: None }));
        assert_eq!(
            at("/api/exchanges?after=7&run=ID"),
            Some(Route::ApiExchanges { after: 7, run })
        );
        for unknown in [
            "",
            "//",
            "/x",
            "/exchange",
            "/exchange/",
            "/exchange/x",
            "/exchange/ID/",
            "/exchange/ID/x",
            "/exchange/ID?after=x",
            "/exchange/ID/message/",
            "/exchange/ID/message/-1",
            "/body/ID/message/18446744073709551616",
            "/body/ID",
            "/body/ID/both",
            "/body/ID/both/decoded",
            "/body/ID/request/coded",
            "/?run=x",
            "/?before=../..",
            "/api/exchanges?after=-1",
            "/assets/../lib.rs",
            "/assets/%2e%2e",
            "/exchange/%00",
            "/api",
            "/é",
        ] {
            assert_eq!(at(unknown), None, "{unknown}");
        }
    }
}
