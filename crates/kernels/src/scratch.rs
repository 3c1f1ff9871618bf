//! Memory that each thread keeps between tasks.

use std::cell::{Cell, RefCell};

use crate::plan::Plan;
use crate::tile::{LANES, LaneRun, VECTORS};

/// A vector in memory. The alignment avoids loads across cache lines.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct AlignedVector {
    #[expect(dead_code, reason = "accessed through pointers")]
    values: [f32; LANES],
}

impl AlignedVector {
    const ZERO: Self = Self {
        values: [0.0; LANES],
    };
}

/// Working memory of a task.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    panel: Vec<AlignedVector>,
    /// Plans of the panels, or one plan of the positions.
    pub plans: Vec<Plan>,
    /// Runs of the output's vectors.
    pub runs: Vec<LaneRun>,
    /// Start of each vector's runs, of each panel.
    pub starts: Vec<[usize; VECTORS + 1]>,
    /// Offset of each column of the output, of each panel.
    pub positions: Vec<usize>,
    /// Offset and length of the left operand's pieces.
    pub pieces: Vec<(usize, usize)>,
}

impl Scratch {
    /// Returns the plan with this number.
    pub(crate) fn plan_of(&mut self, number: usize) -> &mut Plan {
        if self.plans.len() <= number {
            self.plans.resize_with(number + 1, Plan::default);
        }
        &mut self.plans[number]
    }

    /// Returns aligned memory for `length` values, valid until the next call.
    pub(crate) fn panel(&mut self, length: usize) -> *mut f32 {
        let length = length.div_ceil(LANES);
        if self.panel.len() < length {
            self.panel.resize(length, AlignedVector::ZERO);
        }
        self.panel.as_mut_ptr().cast()
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static VALUES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Runs `work`, which must not start parallel work, with the thread's working memory.
pub(crate) fn with_scratch(work: impl FnOnce(&mut Scratch)) {
    SCRATCH.with_borrow_mut(work);
}

/// Runs `work` with `length` unspecified values.
pub(crate) fn with_values(length: usize, work: impl FnOnce(&mut [f32])) {
    // Taken out, because a thread that waits for parallel work may run another call.
    let mut values = VALUES.take();
    if values.len() < length {
        values.resize(length, 0.0);
    }
    work(&mut values[..length]);
    VALUES.set(values);
}
