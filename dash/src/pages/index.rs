//! The first page: the newest runs, and the table of exchanges that new ones slide into.

use std::collections::HashMap;

use agent_gate_store::record::Mode;
use agent_gate_store::{Error, ExchangeRow, Filter, Id, Kind, Reader, RunRow, Timestamp};
use serde::Serialize;

use super::{flags, frame, time};
use crate::html::Html;
use crate::notices::Notices;
use crate::{mask, words};

/// Rows on one page.
const PAGE_ROWS: usize = 100;

/// Rows in one answer to a live page; the next answer goes on from there.
const CHANGED_ROWS_MAX: usize = 500;

/// Runs in the strip.
const STRIP_RUNS: usize = 8;

/// Runs whose names the table knows; exchanges of older ones show the run's id.
const NAMED_RUNS: usize = 500;

/// Which exchanges are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// Those of this run alone.
    pub(crate) run: Option<Id>,
    /// Those older than this one: the key of a further page.
    pub(crate) before: Option<Id>,
}

/// The page.
pub(crate) fn page(reader: &Reader, view: View, notices: &Notices) -> Result<String, Error> {
    // Before the rows: what is committed in between comes once more over the live wire, not never.
    let committed = reader.committed()?;
    let runs = reader.runs(NAMED_RUNS)?;
    let filter = Filter { run: view.run, before: view.before };
    let mut rows = reader.exchanges(&filter, PAGE_ROWS + 1)?;
    let more = rows.len() > PAGE_ROWS;
    rows.truncate(PAGE_ROWS);

    let mut main = Html::new();
    put_strip(&mut main, &runs, view.run);
    put_title(&mut main, &runs, view);
    put_table(&mut main, &rows, &runs, view, committed);
    put_pager(&mut main, &rows, view, more);
    if rows.is_empty() {
        put_empty(&mut main, view);
    }
    Ok(frame("Exchanges", &main, notices))
}

/// What changed after `after`, for the script: the rows' facts, and the markup to put in.
pub(crate) fn changes_json(reader: &Reader, after: u64, run: Option<Id>) -> Result<String, Error> {
    // In this order: a row is in the index when its number counts as committed.
    let committed = reader.committed()?;
    let changed = reader.changed_since(after, CHANGED_ROWS_MAX)?;
    let names = Names::of(&reader.runs(NAMED_RUNS)?);
    let now = Timestamp::now();
    let last = changed.last().map_or(committed, |row| row.seq);
    let seq = if changed.len() < CHANGED_ROWS_MAX { last.max(committed) } else { last };
    let rows = changed
        .into_iter()
        .filter(|row| run.is_none_or(|run| row.run == run))
        .map(|row| Marked {
            html: exchange_row(&row, &names, now).into_string(),
            facts: shown(row),
        })
        .collect();
    Ok(to_json(&ChangesAnswer { seq, rows }))
}

/// The newest runs, for the script.
pub(crate) fn runs_json(reader: &Reader) -> Result<String, Error> {
    let now = Timestamp::now();
    let runs = reader.runs(STRIP_RUNS)?;
    let marked: Vec<_> = runs
        .into_iter()
        .map(|mut run| {
            // Arguments may be credentials, and the name says enough.
            run.argv.truncate(1);
            Marked { html: card(&run, None, now).into_string(), facts: run }
        })
        .collect();
    Ok(to_json(&marked))
}

#[derive(Serialize)]
struct ChangesAnswer {
    /// What to ask for next, as `after`.
    seq: u64,
    /// Oldest change first.
    rows: Vec<Marked<ExchangeRow>>,
}

/// A row and how it looks.
#[derive(Serialize)]
struct Marked<T> {
    #[serde(flatten)]
    facts: T,
    html: String,
}

/// Rows are plain facts with text keys, which always serialise.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("rows have text keys only")
}

/// The row without the credentials in its target.
fn shown(mut row: ExchangeRow) -> ExchangeRow {
    row.path = mask::target(&row.path).into_owned();
    row
}

/// The runs' names by id.
struct Names(HashMap<Id, String>);

impl Names {
    fn of(runs: &[RunRow]) -> Self {
        Self(runs.iter().map(|run| (run.id, run.agent.clone())).collect())
    }

    fn name(&self, run: Id) -> String {
        match self.0.get(&run) {
            Some(name) => name.clone(),
            None => words::short(&run.to_string()).to_owned(),
        }
    }
}

fn put_strip(out: &mut Html, runs: &[RunRow], selected: Option<Id>) {
    let now = Timestamp::now();
    out.put("<nav id=\"runs\" aria-label=\"Runs\">", &[]);
    for run in runs.iter().take(STRIP_RUNS) {
        out.put("{}", &[&card(run, selected, now)]);
    }
    out.put("</nav>", &[]);
}

fn card(run: &RunRow, selected: Option<Id>, now: Timestamp) -> Html {
    let id = run.id.to_string();
    let current = if selected == Some(run.id) { "true" } else { "false" };
    let (mode, mode_class) = match run.mode {
        Mode::Airtight => ("airtight", "airtight"),
        Mode::Permissive => ("permissive", "permissive"),
    };
    let mut html = Html::of(
        "<a class=\"run\" href=\"/?run={}\" data-run=\"{}\" aria-current=\"{}\" title=\"{}\">\
         <strong>{}</strong> <span class=\"mode {}\">{}</span>\
         <span class=\"facts\">{} · {} · {}</span>",
        &[
            &id,
            &id,
            &current,
            &run.cwd,
            &run.agent,
            &mode_class,
            &mode,
            &time(run.at, now),
            &count(run.exchanges),
            &end(run),
        ],
    );
    if let Some(reason) = &run.weaker {
        html.put("<span class=\"why\">{}</span>", &[reason]);
    }
    html.put("</a>", &[]);
    html
}

fn count(exchanges: u64) -> String {
    if exchanges == 1 { "1 exchange".to_owned() } else { format!("{exchanges} exchanges") }
}

fn end(run: &RunRow) -> Html {
    match (run.ended_at, run.status) {
        (None, _) => Html::of("<span class=\"open\">not ended</span>", &[]),
        (Some(_), None) => Html::of("<span class=\"bad\">lost</span>", &[]),
        (Some(_), Some(0)) => Html::of("exit 0", &[]),
        (Some(_), Some(status)) => {
            Html::of("<span class=\"bad\">exit {}</span>", &[&status.to_string()])
        }
    }
}

fn put_title(out: &mut Html, runs: &[RunRow], view: View) {
    let name = match view.run {
        Some(run) => format!("Exchanges of {}", Names::of(runs).name(run)),
        None => "Exchanges".to_owned(),
    };
    out.put("<div class=\"title\"><h1>{}</h1>", &[&name]);
    if view.run.is_some() {
        out.put("<a href=\"/\">all runs</a>", &[]);
    }
    if view.before.is_some() {
        out.put("<a href=\"/{}\">newest</a>", &[&run_query(view.run)]);
    }
    out.put("</div>", &[]);
}

fn run_query(run: Option<Id>) -> String {
    run.map(|run| format!("?run={run}")).unwrap_or_default()
}

/// The table carries what the script needs to keep it live; a further page stands still.
fn put_table(out: &mut Html, rows: &[ExchangeRow], runs: &[RunRow], view: View, committed: u64) {
    let run = view.run.map(|run| run.to_string()).unwrap_or_default();
    let seq = if view.before.is_none() { committed.to_string() } else { String::new() };
    let hidden = if rows.is_empty() { "none" } else { "" };
    out.put(
        "<table id=\"exchanges\" class=\"{}\" data-after=\"{}\" data-run=\"{}\"><thead><tr>\
         <th>Time</th><th>Run</th><th>Method</th><th>Host and path</th><th>Status</th>\
         <th>Outcome</th><th class=\"num\">Sent</th><th class=\"num\">Received</th>\
         <th class=\"num\">Took</th></tr></thead><tbody>",
        &[&hidden, &seq, &run],
    );
    let names = Names::of(runs);
    let now = Timestamp::now();
    for row in rows {
        out.put("{}", &[&exchange_row(row, &names, now)]);
    }
    out.put("</tbody></table>", &[]);
}

fn exchange_row(row: &ExchangeRow, names: &Names, now: Timestamp) -> Html {
    let id = row.id.to_string();
    let (status, status_class) = status(row);
    let outcome = outcome(row);
    let pending = if outcome.is_empty() { "pending" } else { "" };
    Html::of(
        "<tr id=\"x-{}\" class=\"{}\"><td class=\"time\">{}</td>\
         <td class=\"by\"><a href=\"/?run={}\">{}</a></td><td class=\"method\">{}</td>\
         <td class=\"what\"><a href=\"/exchange/{}\"><b>{}</b>{}</a>{}</td>\
         <td class=\"status\"><span class=\"{}\">{}</span></td><td class=\"outcome\">{}</td>\
         <td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num took\">{}</td></tr>",
        &[
            &id,
            &pending,
            &time(row.at, now),
            &row.run.to_string(),
            &names.name(row.run),
            &method(row),
            &id,
            &authority(&row.scheme, &row.host, row.port),
            &mask::target(&row.path),
            &flags(&row.flags),
            &status_class,
            &status,
            &outcome,
            &volume(row.messages_sent, Some(row.request_bytes)),
            &volume(row.messages_received, row.response_bytes),
            &row.duration_us.map(words::duration).unwrap_or_default(),
        ],
    )
}

/// How much went one way: messages of a WebSocket, else bytes.
fn volume(messages: Option<u64>, bytes: Option<u64>) -> String {
    match messages {
        Some(count) => format!("{count} msg"),
        None => bytes.map(words::bytes).unwrap_or_default(),
    }
}

fn method(row: &ExchangeRow) -> &str {
    match row.kind {
        Kind::Tunnel => "tunnel",
        Kind::Exchange | Kind::Refused => &row.method,
    }
}

/// Host and port; what is usual is left out, clear text is said. There is no host where the record
/// of the request is missing.
pub(crate) fn authority(scheme: &str, host: &str, port: u16) -> String {
    if host.is_empty() {
        return "unknown host".to_owned();
    }
    let scheme_shown = if scheme == "http" { "http://" } else { "" };
    let usual = matches!((scheme, port), ("http", 80) | ("https" | "", 443));
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    if usual { format!("{scheme_shown}{host}") } else { format!("{scheme_shown}{host}:{port}") }
}

fn status(row: &ExchangeRow) -> (String, &'static str) {
    match (row.kind, row.status) {
        (Kind::Refused, _) => ("refused".to_owned(), "s5"),
        (Kind::Tunnel, _) => ("unread".to_owned(), "s1"),
        (Kind::Exchange, Some(status)) => (status.to_string(), status_class(status)),
        (Kind::Exchange, None) if row.outcome.is_some() => ("none".to_owned(), "s5"),
        (Kind::Exchange, None) => ("…".to_owned(), "s1"),
    }
}

/// The colour of a status.
pub(crate) fn status_class(status: u16) -> &'static str {
    match status {
        100..200 => "s1",
        200..300 => "s2",
        300..400 => "s3",
        400..500 => "s4",
        _ => "s5",
    }
}

fn outcome(row: &ExchangeRow) -> &'static str {
    match (row.refused_by, row.outcome) {
        (Some(by), _) => words::refused_by(by),
        (None, Some(outcome)) => words::outcome(outcome),
        (None, None) => "",
    }
}

fn put_pager(out: &mut Html, rows: &[ExchangeRow], view: View, more: bool) {
    let (Some(last), true) = (rows.last(), more) else { return };
    let run = view.run.map(|run| format!("&run={run}")).unwrap_or_default();
    let target = format!("/?before={}{run}", last.id);
    out.put("<p class=\"pager\"><a id=\"older\" href=\"{}\">Older exchanges</a></p>", &[&target]);
}

fn put_empty(out: &mut Html, view: View) {
    if view.run.is_some() || view.before.is_some() {
        out.put("<div class=\"empty\" id=\"empty\"><p>No exchanges here.</p></div>", &[]);
        return;
    }
    out.put(
        "<div class=\"empty\" id=\"empty\"><h2>Nothing captured yet</h2>\
         <p>Start an agent through the gate; what it sends and receives appears here as it happens.</p>\
         <pre>agent-gate run -- claude</pre>\
         <p>Or watch a scripted conversation, without network or account:</p>\
         <pre>agent-gate demo</pre></div>",
        &[],
    );
}
