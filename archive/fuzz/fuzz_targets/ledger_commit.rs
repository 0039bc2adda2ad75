#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| teeline_archive_fuzz::ledger_commit(data));
