//! Target `admin_query` of `tests/fuzz` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (tombolo_tests_fuzz::target("admin_query").feed)(input));
