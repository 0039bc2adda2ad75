#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| teeline_proxy::fuzzing::session(data));
