//! A running statistic of a layer: updated in the forward pass, not trained.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
    ParamId,
};
use burn::tensor::{Device, Tensor};

/// A running statistic `[C]`: updated in the forward pass, saved with the weights, never trained.
///
/// Burn's `RunningState` averages over threads, shares its value between clones and ignores the id
/// that a mapper assigns. Here one thread trains, clones are independent, and the mapper's id is
/// used.
pub struct RunningStatistic {
    id: ParamId,
    // Boxed because a network has hundreds of statistics and is moved on the stack.
    value: Box<Mutex<Tensor<1>>>,
}

impl RunningStatistic {
    pub(super) fn new(value: Tensor<1>) -> Self {
        Self::with_id(ParamId::new(), value)
    }

    fn with_id(id: ParamId, value: Tensor<1>) -> Self {
        let value = Box::new(Mutex::new(value));
        Self { id, value }
    }

    pub(super) fn value(&self) -> Tensor<1> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        value.clone()
    }

    /// Replaces the value. The new value must not be part of an autodiff graph.
    pub(super) fn set(&self, value: Tensor<1>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl Clone for RunningStatistic {
    fn clone(&self) -> Self {
        Self::with_id(self.id, self.value())
    }
}

impl fmt::Debug for RunningStatistic {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "RunningStatistic: {}", self.id)
    }
}

impl Module for RunningStatistic {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_float(&Param::initialized(self.id, self.value()));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let param = mapper.map_float(Param::initialized(self.id, self.value()));
        let (id, value, _) = param.consume();
        // A mapper may enable gradients; a statistic is never trained.
        Self::with_id(id, value.set_require_grad(false))
    }

    fn to_device(self, device: &Device) -> Self {
        Self::with_id(self.id, self.value().to_device(device))
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn collect_devices(&self, mut devices: Vec<Device>) -> Vec<Device> {
        let device = self.value().device();
        if !devices.contains(&device) {
            devices.push(device);
        }
        devices
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        Self::with_id(self.id, self.value().without_autodiff())
    }

    fn train(self) -> Self {
        Self::with_id(self.id, Tensor::from_inner(self.value()))
    }
}

impl ModuleDisplayDefault for RunningStatistic {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&"RunningStatistic").optional()
    }
}

impl ModuleDisplay for RunningStatistic {}
