//! Config fuzz.
