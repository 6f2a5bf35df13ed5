//! Client hellos: any bytes, and hellos of our own making.

use super::cuts::Cuts;
use crate::limits::CLIENT_HELLO_BYTES_MAX;
use crate::proto::client_hello::{ClientHello, Sniffed, sniff};

/// Sniffs the input, and a hello that asks for what the input says.
pub fn client_hello(data: &[u8]) {
    let cuts = Cuts::read(data);
    match sniff_in_any_cut(&cuts) {
        Sniffed::Hello(hello) => check_bounds(&hello, cuts.input.len()),
        Sniffed::Partial => assert!(cuts.input.len() <= CLIENT_HELLO_BYTES_MAX, "waits for ever"),
        Sniffed::Other => assert_ne!(cuts.input[0], 22),
        Sniffed::Malformed => assert_eq!(cuts.input[0], 22),
    }
    check_own_hello(&cuts);
}

fn sniff_in_any_cut(cuts: &Cuts<'_>) -> Sniffed {
    let decided = |input: &[u8]| Some(sniff(input)).filter(|it| *it != Sniffed::Partial);
    cuts.first(decided).unwrap_or(Sniffed::Partial)
}

/// What is found stood in the input.
fn check_bounds(hello: &ClientHello, bytes: usize) {
    let names = hello.sni.as_ref().map_or(0, String::len);
    let protocols: usize = hello.alpn.iter().map(|it| it.len() + 1).sum();
    assert!(names + protocols < bytes);
}

/// A hello whose name is the input's text and whose protocols are its pieces, over records of any
/// length, is read as that.
fn check_own_hello(cuts: &Cuts<'_>) {
    let name: String = String::from_utf8_lossy(cuts.input).chars().take(60).collect();
    let alpn: Vec<_> =
        cuts.pieces().into_iter().take(8).map(|it| it[..it.len().min(30)].to_vec()).collect();
    let names = prefixed_u16(&[&[0][..], &prefixed_u16(name.as_bytes())].concat());
    let protocols: Vec<u8> = alpn.iter().flat_map(|it| prefixed_u8(it)).collect();
    let extensions = [
        extension(0x2a2a, cuts.input.get(..9).unwrap_or_default()), // one that nobody knows (RFC 8701)
        extension(16, &prefixed_u16(&protocols)),
        extension(0, &names),
    ];
    let body = [
        &[3, 3][..],
        &[7; 32],
        &prefixed_u8(&[9; 32]),
        &prefixed_u16(&[0x13, 1]),
        &prefixed_u8(&[0]),
        &prefixed_u16(&extensions.concat()),
    ];
    let body = body.concat();
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    let size = cuts.input.first().map_or(1, |byte| usize::from(*byte) + 1);
    let records: Vec<u8> = message
        .chunks(size)
        .flat_map(|part| [&[22, 3, 1][..], &prefixed_u16(part)].concat())
        .collect();
    let wanted = Sniffed::Hello(ClientHello { sni: Some(name), alpn });
    assert_eq!(sniff_in_any_cut(&cuts.over(&records)), wanted);
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &prefixed_u16(data)].concat()
}

fn prefixed_u8(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).expect("short")], data].concat()
}

fn prefixed_u16(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).expect("short").to_be_bytes()[..], data].concat()
}
