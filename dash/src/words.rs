//! Numbers, times and outcomes as people read them.

use agent_gate_store::Timestamp;
use agent_gate_store::record::{CodingFlaw, EventsFlaw, Flag, Flaw, Outcome, RefusedBy};

/// `512 B`, `1.5 KB`, `20 MB`: powers of 1000, at most three digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut unit = 0;
    let mut tenths = count / 100;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    let name = UNITS[unit];
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", tenths / 10)
    }
}

/// `840 µs`, `12 ms`, `3.4 s`, `2 min 5 s`.
pub(crate) fn duration(us: u64) -> String {
    let ms = us / 1000;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{ms} ms"),
        1_000_000..60_000_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// The time of day in UTC to the millisecond; with the day when it is not today. The script of the
/// page turns it into the reader's own zone.
pub(crate) fn time(at: Timestamp, now: Timestamp) -> String {
    let (at, now) = (at.to_string(), now.to_string());
    // RFC 3339: `2026-01-02T03:04:05.678901Z`.
    let day = at.get(..10).unwrap_or_default();
    let clock = at.get(11..23).unwrap_or_default();
    if now.starts_with(day) { clock.to_owned() } else { format!("{day} {clock}") }
}

/// The end of an id, enough to tell it from the ones near it.
pub(crate) fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(6)..).unwrap_or(id)
}

/// What is wrong with a coded body, in a sentence.
pub(crate) fn coding_flaw(flaw: CodingFlaw) -> &'static str {
    match flaw {
        CodingFlaw::Bomb => "It swells beyond all measure, so decoding stopped.",
        CodingFlaw::Corrupt => "It is not what its content coding says; this came before.",
        CodingFlaw::Truncated => "It ends before its content coding does.",
        CodingFlaw::Trailing => "More follows behind the end of its content coding.",
        CodingFlaw::Unsupported => "Its content coding is not known: shown as it was sent.",
        CodingFlaw::Window => "It needs a larger window than HTTP allows, so it was not decoded.",
    }
}

/// How many events there were, and what was wrong with them.
pub(crate) fn events(count: u64, flaw: Option<EventsFlaw>) -> String {
    match flaw {
        None => count.to_string(),
        Some(EventsFlaw::Oversized) => format!("{count}, and others that are too long"),
        Some(EventsFlaw::Unfinished) => format!("{count}, and an unfinished one"),
    }
}

/// How it ended, in words.
pub(crate) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete => "complete",
        Outcome::CutByClient => "cut by client",
        Outcome::CutByOrigin => "cut by origin",
        Outcome::NameUnknown => "name unknown",
        Outcome::Unreachable => "unreachable",
        Outcome::OriginTlsFailed => "TLS with origin failed",
        Outcome::ProxyFailed => "upstream proxy failed",
        Outcome::ClientTlsFailed => "TLS with client failed",
        Outcome::ClientClosedEarly => "client closed early",
        Outcome::OriginSilent => "origin silent",
        Outcome::OriginBroken => "origin broke HTTP",
        Outcome::ClientBroken => "client broke HTTP",
        Outcome::AddressRefused => "address refused",
        Outcome::RecordingStopped => "recording stopped",
        Outcome::GateStopped => "gate stopped",
    }
}

/// What refused it, in words.
pub(crate) fn refused_by(by: RefusedBy) -> &'static str {
    match by {
        RefusedBy::Denylisted => "on the denylist",
        RefusedBy::HostNotAllowlisted => "not on the allowlist",
        RefusedBy::AddressRefused => "address refused",
        RefusedBy::UnknownProtocol => "unknown protocol",
        RefusedBy::BadRequest => "bad request",
        RefusedBy::HeadTimeout => "head not in time",
        RefusedBy::TooManyConnections => "too many connections",
        RefusedBy::RecordingStopped => "recording stopped",
    }
}

/// What is wrong with a message, in words.
pub(crate) fn flaw(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::ReservedBits => "reserved bits set",
        Flaw::UnknownOpcode => "unknown opcode",
        Flaw::LengthNotMinimal => "length written too long",
        Flaw::LengthOutOfRange => "impossible length",
        Flaw::ControlFragmented => "control frame in fragments",
        Flaw::ControlTooLong => "control frame too long",
        Flaw::Unmasked => "not masked",
        Flaw::Masked => "masked",
        Flaw::ContinuationWithoutStart => "continues nothing",
        Flaw::Interrupted => "another began inside it",
        Flaw::NotUtf8 => "not UTF-8",
        Flaw::CloseTooShort => "half a status code",
        Flaw::CloseCodeInvalid => "status code not allowed",
        Flaw::AfterClose => "after the close",
        Flaw::InflateFailed => "cannot be inflated",
        Flaw::InflateBomb => "inflates beyond measure",
        Flaw::NotInflated => "as on the wire",
        Flaw::Rest => "rest of the one before",
    }
}

/// What is odd, as a label and in a sentence.
pub(crate) fn flag(flag: Flag) -> (&'static str, &'static str) {
    match flag {
        Flag::HostMismatch => {
            ("host mismatch", "The names by which the client asked for the host disagree.")
        }
        Flag::ClientDistrust => {
            ("client distrust", "The client does not accept the gate's certificate.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_at_most_three_digits() {
        for (count, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KB"),
            (1549, "1.5 KB"),
            (20_000, "20 KB"),
            (999_999, "999 KB"),
            (1_000_000, "1.0 MB"),
            (5_300_000_000, "5.3 GB"),
            (u64::MAX, "18446 PB"),
        ] {
            assert_eq!(bytes(count), shown, "{count}");
        }
    }

    #[test]
    fn durations_take_the_unit_that_fits() {
        for (us, shown) in
            [(840, "840 µs"), (12_900, "12 ms"), (3_450_000, "3.4 s"), (125_000_000, "2 min 5 s")]
        {
            assert_eq!(duration(us), shown);
        }
    }
}
