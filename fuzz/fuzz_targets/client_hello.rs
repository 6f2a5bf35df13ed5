//! TLS client hellos. See `agent_gate_engine::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_gate_engine::fuzz::client_hello(data));
