//! One exchange: the request left, the response right; one pane for a tunnel or a refusal.

use std::borrow::Cow;
use std::net::SocketAddr;

use agent_gate_store::record::{
    Field, Flag, Record, Refused, Request, Response, ResponseHead, Timings, Tls, Tunnel,
};
use agent_gate_store::{Error, Id, Reader, Timestamp};

use super::{flags, frame, index, time, websocket};
use crate::html::{Fill, Html};
use crate::notices::Notices;
use crate::{body, mask, words};

/// The page, with messages from behind the one at `after`; none when there is no such exchange.
pub(crate) fn page(
    reader: &Reader,
    id: Id,
    after: u64,
    notices: &Notices,
) -> Result<Option<String>, Error> {
    // First: a response that lands while the page is built is then still news to the script.
    let committed = reader.committed()?;
    let Some(exchange) = reader.exchange(id)? else { return Ok(None) };
    let mut main = Html::new();
    match (&exchange.request, &exchange.response) {
        (Some(Record::Tunnel(tunnel)), _) => put_tunnel(&mut main, tunnel),
        (Some(Record::Refused(refused)), _) => put_refused(&mut main, refused),
        (Some(Record::Request(request)), response) => {
            let response = match response {
                Some(Record::Response(response)) => Some(response),
                _ => None,
            };
            put_exchange(&mut main, reader, request, response, committed);
        }
        (_, Some(Record::Response(response))) => put_response(&mut main, reader, response),
        _ => return Ok(None),
    }
    websocket::put_list(&mut main, reader, &exchange.row, after)?;
    let title = format!("Exchange {}", words::short(&id.to_string()));
    Ok(Some(frame(&title, &main, notices)))
}

fn put_exchange(
    out: &mut Html,
    reader: &Reader,
    request: &Request<'_>,
    response: Option<&Response<'_>>,
    committed: u64,
) {
    let authority = index::authority(&request.scheme, &request.host, request.port);
    put_title(
        out,
        &request.head.method,
        &authority,
        &mask::target(&request.head.target),
        &request.flags,
    );
    out.put("<dl class=\"facts\">", &[]);
    put_common(out, request.id, request.run, request.at);
    if let Some(response) = response {
        put_end(out, response);
    }
    put_addresses(out, request.client, response.and_then(|r| r.address).or(request.address));
    if let Some(tls) = &request.tls {
        put_fact(out, "TLS", &tls_words(tls));
    }
    out.put("</dl><div class=\"panes\">", &[]);
    put_request(out, reader, request);
    match response {
        Some(response) => put_response(out, reader, response),
        None => put_waiting(out, request, committed),
    }
    out.put("</div>", &[]);
}

fn put_title(out: &mut Html, method: &str, authority: &str, target: &str, odd: &[Flag]) {
    out.put(
        "<div class=\"title\"><h1><span class=\"method\">{}</span> <b>{}</b>{}</h1>{}</div>",
        &[&method, &authority, &target, &flags(odd)],
    );
}

pub(super) fn put_fact(out: &mut Html, name: &'static str, value: &dyn Fill) {
    out.put("<div><dt>{}</dt><dd>{}</dd></div>", &[&name, value]);
}

fn put_common(out: &mut Html, id: Id, run: Id, at: Timestamp) {
    put_fact(out, "Time", &time(at, Timestamp::now()));
    let run = run.to_string();
    let link = Html::of("<a href=\"/?run={}\">{}</a>", &[&run, &words::short(&run)]);
    put_fact(out, "Run", &link);
    put_fact(out, "Id", &id.to_string());
}

fn put_addresses(out: &mut Html, client: SocketAddr, origin: Option<SocketAddr>) {
    put_fact(out, "Client", &client.to_string());
    if let Some(origin) = origin {
        put_fact(out, "Origin", &origin.to_string());
    }
}

fn put_end(out: &mut Html, response: &Response<'_>) {
    put_fact(out, "Outcome", &words::outcome(response.outcome));
    if let Some(error) = &response.error {
        put_fact(out, "Error", error);
    }
    if let Some(count) = response.events {
        put_fact(out, "Events", &words::events(count, response.events_flaw));
    }
    put_fact(out, "Took", &words::duration(response.timings.total_us));
    let steps = steps(&response.timings);
    if !steps.is_empty() {
        put_fact(out, "Steps", &steps);
    }
    if let Some(relayed) = response.upgraded {
        let line = format!(
            "{} sent, {} received",
            words::bytes(relayed.sent),
            words::bytes(relayed.received)
        );
        put_fact(out, "After upgrade", &line);
    }
}

fn steps(timings: &Timings) -> String {
    let named = [
        ("DNS", timings.dns_us),
        ("connect", timings.connect_us),
        ("TLS", timings.tls_us),
        ("first byte after", timings.first_byte_us),
    ];
    let shown: Vec<_> = named
        .iter()
        .filter_map(|(name, us)| us.map(|us| format!("{name} {}", words::duration(us))))
        .collect();
    shown.join(", ")
}

fn tls_words(tls: &Tls<'_>) -> String {
    let mut line = tls.version.to_string();
    for more in [&tls.alpn, &tls.sni].into_iter().flatten() {
        line += " · ";
        line += more;
    }
    line
}

fn put_request(out: &mut Html, reader: &Reader, request: &Request<'_>) {
    let head = &request.head;
    out.put(
        "<section class=\"pane\"><h2>Request</h2><p class=\"start\">{} {} {}</p>",
        &[&head.method, &mask::target(&head.target), &head.version],
    );
    if !request.complete {
        out.put("<p class=\"note bad\">The client did not send it to its end.</p>", &[]);
    }
    put_fields(out, &head.fields);
    body::put(out, reader, &request.body, &head.fields, &raw(request.id, "request"));
    put_trailers(out, &request.trailers);
    out.put("</section>", &[]);
}

fn put_response(out: &mut Html, reader: &Reader, response: &Response<'_>) {
    out.put("<section class=\"pane\"><h2>Response</h2>", &[]);
    if response.by_gate {
        out.put("<p class=\"note bad\">Written by the gate, not by the origin.</p>", &[]);
    }
    for head in &response.interim {
        put_response_head(out, head);
    }
    let mut fields: &[Field<'_>] = &[];
    match &response.head {
        Some(head) => {
            put_response_head(out, head);
            fields = &head.fields;
        }
        None => out.put("<p class=\"note bad\">No response head arrived.</p>", &[]),
    }
    body::put(out, reader, &response.body, fields, &raw(response.id, "response"));
    put_trailers(out, &response.trailers);
    out.put("</section>", &[]);
}

fn put_response_head(out: &mut Html, head: &ResponseHead<'_>) {
    out.put(
        "<p class=\"start\">{} <span class=\"{}\">{}</span> {}</p>",
        &[&head.version, &index::status_class(head.status), &u64::from(head.status), &head.reason],
    );
    put_fields(out, &head.fields);
}

/// The script reloads the page when the response lands, and tells when messages do.
fn put_waiting(out: &mut Html, request: &Request<'_>, committed: u64) {
    out.put(
        "<section class=\"pane\" id=\"waiting\" data-after=\"{}\" data-run=\"{}\" data-id=\"{}\">\
         <h2>Response</h2><p class=\"note\">None yet.</p>\
         <p class=\"note\" id=\"newer\" hidden><a href=\"\">New messages: reload</a></p></section>",
        &[&committed, &request.run.to_string(), &request.id.to_string()],
    );
}

/// Every field line, in order.
fn put_fields(out: &mut Html, fields: &[Field<'_>]) {
    out.put("<table class=\"fields\"><tbody>", &[]);
    for field in fields {
        let value = String::from_utf8_lossy(&field.value);
        let shown: Cow<'_, str> = mask::field(&field.name, &value);
        out.put("<tr><th>{}</th><td>{}</td></tr>", &[&field.name, &shown]);
    }
    out.put("</tbody></table>", &[]);
}

fn put_trailers(out: &mut Html, trailers: &[Field<'_>]) {
    if !trailers.is_empty() {
        out.put("<h3>Trailers</h3>", &[]);
        put_fields(out, trailers);
    }
}

fn raw(id: Id, side: &str) -> String {
    format!("/body/{id}/{side}")
}

fn put_tunnel(out: &mut Html, tunnel: &Tunnel<'_>) {
    let authority = index::authority("", &tunnel.host, tunnel.port);
    put_title(out, "tunnel", &authority, "", &tunnel.flags);
    let why = if tunnel.passthrough {
        "Passed through unread: the passthrough list names the host."
    } else {
        "It ended before it carried an exchange."
    };
    out.put("<section class=\"pane\"><p>{}</p><dl class=\"facts\">", &[&why]);
    put_common(out, tunnel.id, tunnel.run, tunnel.at);
    put_fact(out, "Outcome", &words::outcome(tunnel.outcome));
    if let Some(error) = &tunnel.error {
        put_fact(out, "Error", error);
    }
    if let Some(sni) = &tunnel.sni {
        put_fact(out, "SNI", sni);
    }
    put_fact(out, "Sent", &words::bytes(tunnel.transferred.sent));
    put_fact(out, "Received", &words::bytes(tunnel.transferred.received));
    put_fact(out, "Open for", &words::duration(tunnel.duration_us));
    put_addresses(out, tunnel.client, tunnel.address);
    out.put("</dl></section>", &[]);
}

fn put_refused(out: &mut Html, refused: &Refused<'_>) {
    let authority = index::authority("", &refused.host, refused.port);
    put_title(out, "refused", &authority, "", &refused.flags);
    out.put("<section class=\"pane\"><p>{}</p><dl class=\"facts\">", &[&refused.detail]);
    put_common(out, refused.id, refused.run, refused.at);
    put_fact(out, "Refused by", &words::refused_by(refused.by));
    if let Some(sni) = &refused.sni {
        put_fact(out, "SNI", sni);
    }
    if let Some(request) = &refused.request {
        put_fact(out, "Request", &mask::target(request));
    }
    put_addresses(out, refused.client, None);
    out.put("</dl></section>", &[]);
}
