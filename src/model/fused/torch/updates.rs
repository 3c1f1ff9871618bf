//! Updates of parameters in place, in few launches.
//!
//! Burn's optimizers update one parameter at a time with several operations each. On a GPU, the
//! launches of these small operations take longer than the computation. Inside
//! [`collect_updates`], the functions here therefore only note what to do, and one call updates all
//! parameters at the end.

use std::cell::RefCell;

use burn::backend::libtorch::TchTensor;
use burn::tensor::{Device, Tensor};

use super::shim;
use super::tensors::{from_torch, into_torch, torch_device};

/// Constants of Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdamConstants {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

/// A rule with all its constants. Parameters with equal rules are updated together.
#[derive(Debug, Clone, Copy, PartialEq)]
enum UpdateRule {
    Adadelta {
        rate: f64,
        rho: f64,
        epsilon: f64,
    },
    Adam {
        rate: f64,
        constants: AdamConstants,
        step: usize,
    },
    Sgd {
        rate: f64,
    },
    Lerp {
        rate: f64,
    },
}

/// The parameters of one rule; each with up to three more tensors.
#[derive(Debug)]
struct RuleUpdate {
    rule: UpdateRule,
    parameters: Vec<Vec<tch::Tensor>>,
}

thread_local! {
    /// Noted updates; `None` outside of [`collect_updates`].
    static NOTED: RefCell<Option<Vec<RuleUpdate>>> = const { RefCell::new(None) };
}

/// Invariant: every rule notes as many tensors as its function takes.
const COMPLETE: &str = "a rule notes a fixed number of tensors";

impl RuleUpdate {
    fn groups<const N: usize>(&self) -> Vec<[tch::Tensor; N]> {
        let group = |tensors: &Vec<tch::Tensor>| {
            let tensors: Vec<_> = tensors.iter().map(tch::Tensor::shallow_clone).collect();
            tensors.try_into().expect(COMPLETE)
        };
        self.parameters.iter().map(group).collect()
    }

    fn run(&self) {
        match self.rule {
            UpdateRule::Adadelta { rate, rho, epsilon } => {
                shim::adadelta(&self.groups(), rate, rho, epsilon);
            }
            UpdateRule::Adam {
                rate,
                constants,
                step,
            } => {
                let AdamConstants {
                    beta1,
                    beta2,
                    epsilon,
                } = constants;
                shim::adam(&self.groups(), rate, [beta1, beta2, epsilon], step as i64);
            }
            UpdateRule::Sgd { rate } => shim::sgd(&self.groups(), rate),
            UpdateRule::Lerp { rate } => shim::lerp(&self.groups(), rate),
        }
    }
}

/// Runs `work` and then, together, the updates that it requested on this thread.
pub(crate) fn collect_updates<T>(work: impl FnOnce() -> T) -> T {
    NOTED.set(Some(Vec::new()));
    let result = work();
    for update in NOTED.take().unwrap_or_default() {
        update.run();
    }
    result
}

/// Runs the update, or notes it inside [`collect_updates`].
fn update(rule: UpdateRule, tensors: &[&TchTensor]) {
    let tensors: Vec<_> = tensors.iter().map(|t| t.tensor.shallow_clone()).collect();
    NOTED.with_borrow_mut(|noted| {
        let Some(noted) = noted else {
            let parameters = vec![tensors];
            return RuleUpdate { rule, parameters }.run();
        };
        match noted.iter_mut().find(|update| update.rule == rule) {
            Some(update) => update.parameters.push(tensors),
            None => noted.push(RuleUpdate {
                rule,
                parameters: vec![tensors],
            }),
        }
    });
}

/// Returns whether the functions of this module can update tensors of the device.
pub(crate) fn is_torch(device: &Device) -> bool {
    torch_device(device).is_some()
}

/// Invariant: callers check [`is_torch`].
const TORCH: &str = "the caller checked that the tensor is libtorch's";

/// Returns the tensor, or a copy if something else refers to its memory.
fn writable<const D: usize>(tensor: Tensor<D>) -> TchTensor {
    let tensor = into_torch(tensor).expect(TORCH);
    if tensor.can_mut() {
        tensor
    } else {
        TchTensor::new(tensor.tensor.copy())
    }
}

/// Adadelta: returns the parameter and its averages of squares and of squared changes, which are
/// updated in place.
pub(crate) fn adadelta<const D: usize>(
    tensor: Tensor<D>,
    gradient: Tensor<D>,
    averages: [Tensor<D>; 2],
    (rate, rho, epsilon): (f64, f64, f64),
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let gradient = into_torch(gradient).expect(TORCH);
    let value = writable(tensor);
    let [squares, changes] = averages.map(writable);
    let rule = UpdateRule::Adadelta { rate, rho, epsilon };
    update(rule, &[&value, &gradient, &squares, &changes]);
    (from_torch(value), [squares, changes].map(from_torch))
}

/// Adam: returns the parameter and its two moments, which are updated in place. `step` counts
/// from 1.
pub(crate) fn adam<const D: usize>(
    tensor: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    (rate, constants, step): (f64, AdamConstants, usize),
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let gradient = into_torch(gradient).expect(TORCH);
    let value = writable(tensor);
    let [first, second] = moments.map(writable);
    let rule = UpdateRule::Adam {
        rate,
        constants,
        step,
    };
    update(rule, &[&value, &gradient, &first, &second]);
    (from_torch(value), [first, second].map(from_torch))
}

/// SGD without momentum: returns the parameter, which is updated in place.
pub(crate) fn sgd<const D: usize>(tensor: Tensor<D>, gradient: Tensor<D>, rate: f64) -> Tensor<D> {
    let gradient = into_torch(gradient).expect(TORCH);
    let value = writable(tensor);
    update(UpdateRule::Sgd { rate }, &[&value, &gradient]);
    from_torch(value)
}

/// Returns `average + rate·(value − average)`, in place.
pub(crate) fn lerp<const D: usize>(average: Tensor<D>, value: Tensor<D>, rate: f64) -> Tensor<D> {
    let value = into_torch(value).expect(TORCH);
    let average = writable(average);
    update(UpdateRule::Lerp { rate }, &[&average, &value]);
    from_torch(average)
}
