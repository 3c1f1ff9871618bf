//! Rust interface of `shim.cpp`.
#![allow(
    unsafe_code,
    reason = "foreign functions; each receives pointers to live tensors of the stated number"
)]

use std::ffi::{CStr, c_char, c_int};
use std::ptr::null_mut;

use tch::Tensor;
use torch_sys::C_tensor;

/// Stride, padding, dilation and groups of a convolution.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvWindow {
    pub stride: [i64; 2],
    pub padding: [i64; 2],
    pub dilation: [i64; 2],
    pub groups: i64,
}

unsafe extern "C" {
    fn rgby_torch_convolution_backward(
        out: *mut *mut C_tensor,
        gradient: *const C_tensor,
        input: *const C_tensor,
        filters: *const C_tensor,
        window: *const ConvWindow,
        wanted: *const bool,
    ) -> *mut c_char;
    fn rgby_torch_batch_norm(
        out: *mut *mut C_tensor,
        implementation: *mut i64,
        input: *const C_tensor,
        gamma: *const C_tensor,
        beta: *const C_tensor,
        epsilon: f64,
    ) -> *mut c_char;
    fn rgby_torch_batch_norm_backward(
        out: *mut *mut C_tensor,
        implementation: i64,
        gradient: *const C_tensor,
        input: *const C_tensor,
        gamma: *const C_tensor,
        saved: *const *const C_tensor,
        epsilon: f64,
        wanted: *const bool,
    ) -> *mut c_char;
    fn rgby_torch_adadelta(
        tensors: *const *const C_tensor,
        count: usize,
        rate: f64,
        rho: f64,
        epsilon: f64,
    ) -> *mut c_char;
    fn rgby_torch_adam(
        tensors: *const *const C_tensor,
        count: usize,
        rate: f64,
        constants: *const f64,
        step: i64,
    ) -> *mut c_char;
    fn rgby_torch_sgd(tensors: *const *const C_tensor, count: usize, rate: f64) -> *mut c_char;
    fn rgby_torch_lerp(tensors: *const *const C_tensor, count: usize, rate: f64) -> *mut c_char;
    fn rgby_torch_upload(
        out: *mut *mut C_tensor,
        values: *const f32,
        shape: *const i64,
        rank: usize,
        device_type: c_int,
        device_index: c_int,
    ) -> *mut c_char;
    fn rgby_torch_switches(tf32: bool, deterministic: bool);
    fn rgby_torch_built_version() -> *const c_char;
    fn rgby_torch_config() -> *mut c_char;
    fn free(pointer: *mut c_char);
}

/// Returns the text and frees its memory.
fn take_text(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim returns null or a terminated string from `strdup`.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        free(text);
        Some(owned)
    }
}

/// Panics with libtorch's message, as Burn's own operations do.
fn check(error: *mut c_char) {
    if let Some(message) = take_text(error) {
        panic!("libtorch: {message}");
    }
}

/// Takes ownership of a tensor that the shim returned.
fn take(pointer: *mut C_tensor) -> Option<Tensor> {
    // SAFETY: the shim returns null or a new tensor.
    (!pointer.is_null()).then(|| unsafe { Tensor::from_ptr(pointer) })
}

/// Returns the gradients of input, filters and bias, as far as wanted.
pub(super) fn convolution_backward(
    gradient: &Tensor,
    [input, filters]: [&Tensor; 2],
    window: &ConvWindow,
    wanted: [bool; 3],
) -> [Option<Tensor>; 3] {
    let mut out = [null_mut(); 3];
    // SAFETY: `out` and `wanted` have three elements, and all tensors outlive the call.
    check(unsafe {
        rgby_torch_convolution_backward(
            out.as_mut_ptr(),
            gradient.as_ptr(),
            input.as_ptr(),
            filters.as_ptr(),
            window,
            wanted.as_ptr(),
        )
    });
    out.map(take)
}

/// What the gradient of batch normalization requires from the forward pass.
#[derive(Debug)]
pub(super) struct SavedNorm {
    /// The implementation that libtorch selected.
    pub implementation: i64,
    /// Mean, scale and reserved memory.
    pub tensors: [Tensor; 3],
}

/// Normalizes by the statistics of the batch; returns the output, the mean, the unbiased variance,
/// and the state for the gradient.
pub(super) fn batch_norm(
    [input, gamma, beta]: [&Tensor; 3],
    epsilon: f64,
) -> ([Tensor; 3], SavedNorm) {
    let (mut out, mut implementation) = ([null_mut(); 6], 0);
    // SAFETY: `out` has six elements, and all tensors outlive the call.
    check(unsafe {
        rgby_torch_batch_norm(
            out.as_mut_ptr(),
            &raw mut implementation,
            input.as_ptr(),
            gamma.as_ptr(),
            beta.as_ptr(),
            epsilon,
        )
    });
    let [output, mean, variance, saved_mean, scale, reserve] =
        out.map(|pointer| take(pointer).unwrap_or_default());
    let saved = SavedNorm {
        implementation,
        tensors: [saved_mean, scale, reserve],
    };
    ([output, mean, variance], saved)
}

/// Returns the gradients of input, gamma and beta, as far as wanted.
pub(super) fn batch_norm_backward(
    gradient: &Tensor,
    [input, gamma]: [&Tensor; 2],
    (implementation, saved): (i64, [&Tensor; 3]),
    epsilon: f64,
    wanted: [bool; 3],
) -> [Option<Tensor>; 3] {
    let mut out = [null_mut(); 3];
    let saved = saved.map(Tensor::as_ptr);
    // SAFETY: `out`, `saved` and `wanted` have three elements, and all tensors outlive the call.
    check(unsafe {
        rgby_torch_batch_norm_backward(
            out.as_mut_ptr(),
            implementation,
            gradient.as_ptr(),
            input.as_ptr(),
            gamma.as_ptr(),
            saved.as_ptr(),
            epsilon,
            wanted.as_ptr(),
        )
    });
    out.map(take)
}

/// Returns the pointers of groups of tensors, one group after the other.
fn pointers<const N: usize>(groups: &[[Tensor; N]]) -> Vec<*const C_tensor> {
    (0..N)
        .flat_map(|part| groups.iter().map(move |tensors| tensors[part].as_ptr()))
        .collect()
}

/// Updates parameters by Adadelta, in place. Each group is a parameter, its gradient, the average
/// of squares and the average of squared changes.
pub(super) fn adadelta(groups: &[[Tensor; 4]], rate: f64, rho: f64, epsilon: f64) {
    let tensors = pointers(groups);
    // SAFETY: four pointers for each group, and all tensors outlive the call.
    check(unsafe { rgby_torch_adadelta(tensors.as_ptr(), groups.len(), rate, rho, epsilon) });
}

/// Updates parameters by Adam, in place. Each group is a parameter, its gradient, the first and the
/// second moment. `constants` are β₁, β₂ and ε.
pub(super) fn adam(groups: &[[Tensor; 4]], rate: f64, constants: [f64; 3], step: i64) {
    let tensors = pointers(groups);
    // SAFETY: four pointers for each group, three constants, and all tensors outlive the call.
    check(unsafe {
        rgby_torch_adam(
            tensors.as_ptr(),
            groups.len(),
            rate,
            constants.as_ptr(),
            step,
        )
    });
}

/// Updates parameters by SGD without momentum, in place. Each group is a parameter and its gradient.
pub(super) fn sgd(groups: &[[Tensor; 2]], rate: f64) {
    let tensors = pointers(groups);
    // SAFETY: two pointers for each group, and all tensors outlive the call.
    check(unsafe { rgby_torch_sgd(tensors.as_ptr(), groups.len(), rate) });
}

/// Updates averages in place: `average ← average + rate·(value − average)`.
pub(super) fn lerp(groups: &[[Tensor; 2]], rate: f64) {
    let tensors = pointers(groups);
    // SAFETY: two pointers for each group, and all tensors outlive the call.
    check(unsafe { rgby_torch_lerp(tensors.as_ptr(), groups.len(), rate) });
}

/// Copies values to a device; a GPU copies without making the caller wait.
pub(super) fn upload(values: &[f32], shape: &[i64], device: tch::Device) -> Tensor {
    assert_eq!(values.len() as i64, shape.iter().product::<i64>());
    let (kind, index) = match device {
        tch::Device::Cpu => (0, -1),
        tch::Device::Cuda(index) => (1, index as c_int),
        tch::Device::Mps => (13, -1),
        tch::Device::Vulkan => (10, -1),
    };
    let mut out = null_mut();
    // SAFETY: the shape has `rank` elements and as many values as the slice.
    check(unsafe {
        rgby_torch_upload(
            &raw mut out,
            values.as_ptr(),
            shape.as_ptr(),
            shape.len(),
            kind,
            index,
        )
    });
    take(out).unwrap_or_default()
}

/// Sets what cuDNN and cuBLAS may do.
pub(super) fn set_switches(tf32: bool, deterministic: bool) {
    // SAFETY: no pointers.
    unsafe { rgby_torch_switches(tf32, deterministic) }
}

/// Returns the version of libtorch whose headers this program was built with.
pub(super) fn built_version() -> &'static str {
    // SAFETY: a constant string.
    let version = unsafe { CStr::from_ptr(rgby_torch_built_version()) };
    version.to_str().unwrap_or_default()
}

/// Returns the description of the library that is loaded.
pub(super) fn library_description() -> String {
    // SAFETY: no pointers.
    take_text(unsafe { rgby_torch_config() }).unwrap_or_default()
}
