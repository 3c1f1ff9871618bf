//! A number that a layer remembers from batch to batch without training it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
    ParamId,
};
use burn::tensor::{Device, Tensor};

/// A running statistic `[C]`: changed in the forward pass, saved with the weights, never trained.
///
/// Burn's `RunningState` averages what several threads saw, shares its value between clones and
/// keeps its random identity when a mapper gives it another one. Here one thread trains, clones are
/// independent, and the identity is the mapper's.
pub struct Statistic {
    id: ParamId,
    // A network has hundreds of them and is moved about on the stack.
    value: Box<Mutex<Tensor<1>>>,
}

impl Statistic {
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

    /// Replaces the value, which must not be part of a graph of gradients.
    pub(super) fn set(&self, value: Tensor<1>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl Clone for Statistic {
    fn clone(&self) -> Self {
        Self::with_id(self.id, self.value())
    }
}

impl fmt::Debug for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Statistic: {}", self.id)
    }
}

impl Module for Statistic {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_float(&Param::initialized(self.id, self.value()));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let param = mapper.map_float(Param::initialized(self.id, self.value()));
        let (id, value, _) = param.consume();
        // Whatever the mapper is about, a statistic is not trained.
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

impl ModuleDisplayDefault for Statistic {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&"Statistic").optional()
    }
}

impl ModuleDisplay for Statistic {}
