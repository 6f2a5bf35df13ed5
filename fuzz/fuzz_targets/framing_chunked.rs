//! Bodies by any framing, chunked coding above all. See `agent_gate_engine::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_gate_engine::fuzz::framing_chunked(data));
