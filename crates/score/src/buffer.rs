//! Buffers for batches of images, on the heap or in page-locked memory.

use std::fmt;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::value::Tensor;

/// A fixed number of float32 values, initially zero.
pub struct Buffer(BufferMemory);

enum BufferMemory {
    Heap(Vec<f32>),
    /// Page-locked memory, which the GPU copies from without a detour.
    Pinned(Tensor<f32>),
}

impl Buffer {
    /// Allocates `len` values on the heap.
    #[must_use]
    pub fn heap(len: usize) -> Self {
        Self(BufferMemory::Heap(vec![0.0; len]))
    }

    /// Allocates `len` values in page-locked memory for the GPU of that index, on which `session`
    /// runs.
    pub(super) fn pinned(session: &Session, gpu: u32, len: usize) -> ort::Result<Self> {
        let allocator = |index| {
            let place = MemoryInfo::new(
                AllocationDevice::CUDA_PINNED,
                index,
                AllocatorType::Device,
                MemoryType::CPUInput,
            )?;
            Allocator::new(session, place)
        };
        // Some versions of ONNX Runtime have such memory per GPU, others one for all.
        let allocator = allocator(gpu as i32).or_else(|_| allocator(0))?;
        let mut values = Tensor::new(&allocator, [len])?;
        values.extract_tensor_mut().1.fill(0.0);
        Ok(Self(BufferMemory::Pinned(values)))
    }

    #[must_use]
    pub fn values(&self) -> &[f32] {
        match &self.0 {
            BufferMemory::Heap(values) => values,
            BufferMemory::Pinned(values) => values.extract_tensor().1,
        }
    }

    pub fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            BufferMemory::Heap(values) => values,
            BufferMemory::Pinned(values) => values.extract_tensor_mut().1,
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let place = match self.0 {
            BufferMemory::Heap(_) => "heap",
            BufferMemory::Pinned(_) => "pinned",
        };
        write!(f, "{} values, {place}", self.values().len())
    }
}
