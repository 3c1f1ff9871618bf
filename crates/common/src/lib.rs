//! Code that several crates of rgby share:
//! [atomic writes](atomic_file), [panics as errors](catch_panic),
//! [the process's memory](memory), [class names](labels) and [progress](observer).

pub mod atomic_file;
pub mod catch_panic;
pub mod labels;
pub mod memory;
pub mod observer;
