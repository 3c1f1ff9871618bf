//! Code that several crates of rgby share: [atomic writes](atomic_file),
//! [panics as errors](catch_panic), [memory figures](memory) and [class names](labels).

pub mod atomic_file;
pub mod catch_panic;
pub mod labels;
pub mod memory;
