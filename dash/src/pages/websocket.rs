//! The messages of a WebSocket: their list on the page of the exchange, and a page for each.

use agent_gate_store::record::{Direction, Flaw, Message, MessageKind, Record};
use agent_gate_store::{Error, ExchangeRow, Id, MessageRow, Reader, Timestamp};

use super::exchange::put_fact;
use super::{frame, time};
use crate::html::Html;
use crate::notices::Notices;
use crate::{body, words};

/// Messages on one page.
const PAGE_ROWS: usize = 200;

/// Appends the messages of an exchange, from behind the one at `after`; nothing for an exchange
/// that has none.
pub(crate) fn put_list(
    out: &mut Html,
    reader: &Reader,
    exchange: &ExchangeRow,
    after: u64,
) -> Result<(), Error> {
    let (Some(sent), Some(received)) = (exchange.messages_sent, exchange.messages_received) else {
        return Ok(());
    };
    let mut rows = reader.messages(exchange.id, after, PAGE_ROWS + 1)?;
    let more = rows.len() > PAGE_ROWS;
    rows.truncate(PAGE_ROWS);
    let counts = format!("{sent} sent, {received} received");
    out.put("<section class=\"pane messages\"><h2>Messages</h2><p class=\"note\">{}", &[&counts]);
    let id = exchange.id.to_string();
    if after > 0 {
        out.put(" · <a href=\"/exchange/{}\">from the first</a>", &[&id]);
    }
    out.put("</p><table><tbody>", &[]);
    let now = Timestamp::now();
    for row in &rows {
        put_row(out, &id, row, now);
    }
    out.put("</tbody></table>", &[]);
    if let (Some(last), true) = (rows.last(), more) {
        let target = format!("/exchange/{id}?after={}", last.seq);
        out.put(
            "<p class=\"pager\"><a id=\"later\" href=\"{}\">Later messages</a></p>",
            &[&target],
        );
    }
    out.put("</section>", &[]);
    Ok(())
}

fn put_row(out: &mut Html, exchange: &str, row: &MessageRow, now: Timestamp) {
    let text = row.excerpt.as_deref().unwrap_or(match row.bytes {
        0 => "empty",
        _ => "not shown here",
    });
    out.put(
        "<tr class=\"{}\"><td class=\"time\">{}</td><td>{}</td><td>{}</td><td class=\"num\">{}</td>\
         <td class=\"what\"><a href=\"/exchange/{}/message/{}\">{}</a></td>\
         <td class=\"bad\">{}</td></tr>",
        &[
            &direction(row.direction),
            &time(row.at, now),
            &direction(row.direction),
            &kind(row.kind, row.close_code),
            &words::bytes(row.bytes),
            &exchange,
            &row.seq,
            &text,
            &troubles(&row.flaws, row.complete),
        ],
    );
}

/// The page of one message; none when there is no such one.
pub(crate) fn page(
    reader: &Reader,
    exchange: Id,
    seq: u64,
    notices: &Notices,
) -> Result<Option<String>, Error> {
    let Some(Record::Message(message)) = reader.message(exchange, seq)? else { return Ok(None) };
    let mut main = Html::new();
    put_message(&mut main, reader, &message, seq);
    let title = format!("Message {}", words::short(&message.id.to_string()));
    Ok(Some(frame(&title, &main, notices)))
}

fn put_message(out: &mut Html, reader: &Reader, message: &Message<'_>, seq: u64) {
    let exchange = message.exchange.to_string();
    out.put(
        "<div class=\"title\"><h1>{} {}</h1><a href=\"/exchange/{}\">its exchange</a></div>\
         <section class=\"pane\"><dl class=\"facts\">",
        &[&kind(message.kind, message.close_code), &direction(message.direction), &exchange],
    );
    put_fact(out, "Time", &time(message.at, Timestamp::now()));
    put_fact(out, "Id", &message.id.to_string());
    let coded = if message.compressed { ", compressed" } else { "" };
    let frames = if message.frames == 1 {
        "one frame".to_owned()
    } else {
        format!("{} frames", message.frames)
    };
    let wire = format!("{} in {frames}{coded}", words::bytes(message.wire_bytes));
    put_fact(out, "On the wire", &wire);
    put_fact(out, "Took", &words::duration(message.duration_us));
    let troubles = troubles(&message.flaws, message.complete);
    if !troubles.is_empty() {
        put_fact(out, "Flaws", &troubles);
    }
    out.put("</dl>", &[]);
    body::put(out, reader, &message.body, &[], &format!("/body/{exchange}/message/{seq}"));
    out.put("</section>", &[]);
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Sent => "sent",
        Direction::Received => "received",
    }
}

fn kind(kind: MessageKind, close_code: Option<u16>) -> String {
    let word = match kind {
        MessageKind::Text => "text",
        MessageKind::Binary => "binary",
        MessageKind::Ping => "ping",
        MessageKind::Pong => "pong",
        MessageKind::Close => "close",
        MessageKind::Continuation => "continuation",
        MessageKind::Reserved => "reserved",
    };
    close_code.map_or_else(|| word.to_owned(), |code| format!("{word} {code}"))
}

fn troubles(flaws: &[Flaw], complete: bool) -> String {
    let mut shown: Vec<_> = flaws.iter().map(|flaw| words::flaw(*flaw)).collect();
    if !complete {
        shown.push("cut");
    }
    shown.join(", ")
}
