//! Convolutions and their gradients with AVX-512.
//!
//! A convolution is a matrix product: filters × unfolded input. [`Kernels`] unfolds the input in
//! panels that stay in the second-level cache, directly into the order that the product reads, and
//! multiplies them without a further copy. Filters are read where they are.
//!
//! What a thread computes depends on the shape alone. Results are therefore bit-identical from run
//! to run and for any number of threads.
//!
//! A crate of its own, so that it is optimized in the dev profile too.

mod shape;

#[cfg(target_arch = "x86_64")]
mod convolve;
#[cfg(target_arch = "x86_64")]
mod filters;
#[cfg(target_arch = "x86_64")]
mod output;
#[cfg(target_arch = "x86_64")]
mod panels;
#[cfg(target_arch = "x86_64")]
mod plan;
#[cfg(target_arch = "x86_64")]
mod product;
#[cfg(target_arch = "x86_64")]
mod scratch;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tile;

pub use shape::ConvolutionShape;

/// Proof that the processor has AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub struct Kernels(());

/// Never exists: there are no kernels for this architecture.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Debug, Clone, Copy)]
pub enum Kernels {}

#[cfg(target_arch = "x86_64")]
impl Kernels {
    /// Returns the kernels if the processor has the instructions that they use.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("bmi2");
        supported.then_some(Self(()))
    }

    /// Writes the convolution of `input` with `filters` `[outputs, inputs, kernel…]` to `output`.
    ///
    /// # Panics
    ///
    /// If a slice has another length than the shape says, or if the shape is not
    /// [supported](ConvolutionShape::is_supported).
    pub fn convolve(
        self,
        shape: &ConvolutionShape,
        (input, filters): (&[f32], &[f32]),
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) {
        shape.check(input.len(), filters.len(), output.len());
        assert!(bias.is_none_or(|bias| bias.len() == shape.outputs));
        convolve::convolve(self, shape, (input, filters), bias, output);
    }

    /// Writes the gradient of the input to `result`, given the output's gradient.
    ///
    /// # Panics
    ///
    /// Like [`convolve`](Self::convolve).
    pub fn input_gradient(
        self,
        shape: &ConvolutionShape,
        (filters, gradient): (&[f32], &[f32]),
        result: &mut [f32],
    ) {
        shape.check(result.len(), filters.len(), gradient.len());
        convolve::input_gradient(self, shape, (filters, gradient), result);
    }

    /// Writes the gradient of the filters to `result`, given the output's gradient.
    ///
    /// # Panics
    ///
    /// Like [`convolve`](Self::convolve).
    pub fn filters_gradient(
        self,
        shape: &ConvolutionShape,
        (input, gradient): (&[f32], &[f32]),
        result: &mut [f32],
    ) {
        shape.check(input.len(), result.len(), gradient.len());
        filters::filters_gradient(self, shape, (input, gradient), result);
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Kernels {
    /// Returns `None`.
    #[must_use]
    pub fn detect() -> Option<Self> {
        None
    }

    /// Cannot be called.
    pub fn convolve(
        self,
        _: &ConvolutionShape,
        _: (&[f32], &[f32]),
        _: Option<&[f32]>,
        _: &mut [f32],
    ) {
        match self {}
    }

    /// Cannot be called.
    pub fn input_gradient(self, _: &ConvolutionShape, _: (&[f32], &[f32]), _: &mut [f32]) {
        match self {}
    }

    /// Cannot be called.
    pub fn filters_gradient(self, _: &ConvolutionShape, _: (&[f32], &[f32]), _: &mut [f32]) {
        match self {}
    }
}
