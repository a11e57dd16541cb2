//! Target `saved_state` of `tests/fuzz` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (tombolo_tests_fuzz::target("saved_state").feed)(input));
