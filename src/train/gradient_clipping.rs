//! Clipping of a step's gradient to a maximum norm.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Avoids division by zero for a gradient of zero; PyTorch's value.
const EPSILON: f64 = 1e-6;

/// Scales all gradients of `module` by one factor, so that their global L2 norm is at most
/// `max_norm`.
///
/// `g ← g·min(1, max_norm/(‖g‖+1e-6))`, with the norm over all tensors together: PyTorch's
/// `clip_grad_norm_`. Gradients below the limit stay bit-identical. Nothing is read back from the
/// device. The second result is the norm before clipping, of shape `[1]`; it is `None` if there are
/// no gradients.
#[must_use]
pub(super) fn clip_gradients<M: Module>(
    module: &M,
    gradients: GradientsParams,
    max_norm: f64,
) -> (GradientsParams, Option<Tensor<1>>) {
    let mut squares = SquaredNorm {
        gradients: &gradients,
        sum: None,
    };
    module.visit(&mut squares);
    let Some(norm) = squares.sum.map(Tensor::sqrt) else {
        return (gradients, None);
    };
    let mut scale = GradientScaler {
        gradients,
        factor: (norm.clone().add_scalar(EPSILON).recip())
            .mul_scalar(max_norm)
            .clamp_max(1.0),
    };
    module.visit(&mut scale);
    (scale.gradients, Some(norm))
}

/// Computes the squared L2 norm of all gradients.
struct SquaredNorm<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square = gradient.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

/// Multiplies all gradients by one factor `[1]`.
struct GradientScaler {
    gradients: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for GradientScaler {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let factor = self.factor.clone().unsqueeze::<D>();
            self.gradients.register(param.id, gradient * factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[derive(Module, Debug)]
    struct GradientPair {
        matrix: Param<Tensor<2>>,
        vector: Param<Tensor<1>>,
    }

    /// A module and the gradients `[3, 0], [0, 4]` and `[12]` times `scale`, of norm 13 times
    /// `scale`.
    fn problem(scale: f32) -> (GradientPair, GradientsParams) {
        let device = Device::flex().autodiff();
        let matrix = |values: [f32; 4]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [2, 2]), &device)
        };
        let vector = |value: f32| Tensor::<1>::from_data([value], &device);
        let pair = GradientPair {
            matrix: Param::from_tensor(matrix([1.0; 4])),
            vector: Param::from_tensor(vector(1.0)),
        };
        let matrix = matrix([3.0, 0.0, 0.0, 4.0].map(|g| g * scale));
        let loss =
            (pair.matrix.val() * matrix).sum() + (pair.vector.val() * vector(12.0 * scale)).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &pair);
        (pair, gradients)
    }

    fn clipped(scale: f32, max_norm: f64) -> (Vec<f32>, f32) {
        let (pair, gradients) = problem(scale);
        let (gradients, norm) = clip_gradients(&pair, gradients, max_norm);
        assert_eq!(gradients.len(), 2);
        let matrix = gradients.get::<2>(pair.matrix.id).unwrap().into_data();
        let vector = gradients.get::<1>(pair.vector.id).unwrap().into_data();
        let values = matrix.iter::<f32>().chain(vector.iter::<f32>()).collect();
        (values, norm.unwrap().into_scalar())
    }

    #[test]
    fn scales_long_gradients_to_the_maximum_norm() {
        for (scale, max_norm) in [(1.0, 6.5), (1000.0, 1.0), (1e-3, 1e-4), (1.0, 0.0)] {
            let (values, norm) = clipped(scale, max_norm);
            assert!((norm / (13.0 * scale) - 1.0).abs() < 1e-6, "{norm}");
            // PyTorch's formula in float64.
            let factor = max_norm / (13.0 * f64::from(scale) + 1e-6);
            for (found, gradient) in values.iter().zip([3.0, 0.0, 0.0, 4.0, 12.0]) {
                let expected = gradient * f64::from(scale) * factor;
                let apart = (f64::from(*found) - expected).abs();
                assert!(apart <= 1e-6 * expected, "{found} for {expected}");
            }
        }
    }

    #[test]
    fn keeps_short_gradients_bit_identical() {
        for (scale, max_norm) in [(1.0, 13.1), (0.1, 1e6), (0.0, 1.0)] {
            let expected = [3.0, 0.0, 0.0, 4.0, 12.0].map(|g: f32| g * scale);
            assert_eq!(clipped(scale, max_norm).0, expected);
        }
    }

    #[test]
    fn accepts_missing_gradients() {
        let (pair, _) = problem(1.0);
        let (gradients, norm) = clip_gradients(&pair, GradientsParams::new(), 1.0);
        assert!(gradients.is_empty() && norm.is_none());
    }
}
