//! Target `http3_control` of `tests/fuzz` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (tombolo_tests_fuzz::target("http3_control").feed)(input));
