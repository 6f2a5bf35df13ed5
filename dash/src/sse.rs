//! The events of an event stream, for showing (WHATWG HTML, section 9.2.6).

use std::borrow::Cow;

/// One block of an event stream, up to its empty line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The last `event` field.
    pub(crate) name: Option<&'a str>,
    /// The `data` fields joined by line feeds.
    pub(crate) data: Option<Cow<'a, str>>,
    /// All other lines as sent: `id`, `retry`, comments, whatever else.
    pub(crate) others: Vec<&'a str>,
    /// Whether its empty line arrived; without it a client drops the event.
    pub(crate) finished: bool,
}

/// Splits a stream, or as much of it as is there, into its events.
pub(crate) fn events(text: &str) -> Vec<Event<'_>> {
    let mut events = Vec::new();
    let mut event = Event::default();
    for line in lines(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        if line.is_empty() {
            event.finished = true;
            push(&mut events, std::mem::take(&mut event));
        } else {
            take_line(&mut event, line);
        }
    }
    push(&mut events, event);
    events
}

/// Empty lines between events are not events.
fn push<'a>(events: &mut Vec<Event<'a>>, event: Event<'a>) {
    if event.name.is_some() || event.data.is_some() || !event.others.is_empty() {
        events.push(event);
    }
}

fn take_line<'a>(event: &mut Event<'a>, line: &'a str) {
    let (field, value) = line.split_once(':').unwrap_or((line, ""));
    let value = value.strip_prefix(' ').unwrap_or(value);
    match field {
        "event" => event.name = Some(value),
        "data" => match &mut event.data {
            Some(data) => {
                let data = data.to_mut();
                data.push('\n');
                data.push_str(value);
            }
            None => event.data = Some(Cow::Borrowed(value)),
        },
        _ => event.others.push(line),
    }
}

/// Lines end at CRLF, LF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['\r', '\n']).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        rest = after
            .strip_prefix("\r\n")
            .or_else(|| after.strip_prefix(['\r', '\n']))
            .unwrap_or(after);
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lines_are_joined() {
        let stream = "\u{feff}event: a\r\ndata: one\r\ndata:two\rdata\ndata:  three\n\n\n: note\n\nid: 7\ndata: cut";
        let events = events(stream);
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].name, Some("a"));
        assert_eq!(events[0].data.as_deref(), Some("one\ntwo\n\n three"));
        assert_eq!(events[1].others, [": note"]);
        assert_eq!(events[2].others, ["id: 7"]);
        assert_eq!(
            events.iter().map(|event| event.finished).collect::<Vec<_>>(),
            [true, true, false]
        );
    }

    #[test]
    fn any_text_is_taken() {
        assert!(events("").is_empty());
        assert!(events("\n\r\n\r").is_empty());
        assert_eq!(events(":").len(), 1);
        assert_eq!(events("дата: ü")[0].others, ["дата: ü"]);
    }
}
