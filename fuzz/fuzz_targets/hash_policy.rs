//! Target `hash_policy` of `tests/fuzz` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (tombolo_tests_fuzz::target("hash_policy").feed)(input));
