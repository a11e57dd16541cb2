//! Target `log_format` of `tests/fuzz` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (tombolo_tests_fuzz::target("log_format").feed)(input));
