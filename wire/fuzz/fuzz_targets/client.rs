#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| teeline_wire_fuzz::client::client(data));
