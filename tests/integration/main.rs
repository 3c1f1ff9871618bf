//! Tests of the `rgby` program as a user runs it: one binary, a module a subject.

mod cli_score;
mod support;
