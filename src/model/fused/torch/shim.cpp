// Operators of libtorch that the crate tch does not bind, with a C interface for shim.rs.
//
// Each function that can fail returns null, or a message that the caller frees. No function records
// gradients; Burn does that.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/grad_mode.h>
#include <torch/version.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

using at::Tensor;

namespace {

// Number of values that one thread updates at a time.
constexpr int64_t CHUNK = 16 * 1024;

template <class Work> char *guarded(Work work) {
  try {
    at::NoGradGuard no_grad;
    work();
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}

Tensor *owned(const Tensor &tensor) {
  return tensor.defined() ? new Tensor(tensor) : nullptr;
}

std::vector<Tensor> list(Tensor *const *tensors, size_t count) {
  std::vector<Tensor> result;
  result.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    result.push_back(*tensors[i]);
  }
  return result;
}

// Whether one pass over memory can update the tensors.
bool one_pass(const std::vector<const Tensor *> &tensors) {
  for (const Tensor *tensor : tensors) {
    if (!tensor->is_cpu() || tensor->scalar_type() != at::kFloat || !tensor->is_contiguous()) {
      return false;
    }
  }
  return true;
}

} // namespace

extern "C" {

struct RgbyWindow {
  int64_t stride[2];
  int64_t padding[2];
  int64_t dilation[2];
  int64_t groups;
};

// out: gradients of input, filters and bias; null if not wanted.
char *rgby_torch_convolution_backward(Tensor **out, const Tensor *gradient, const Tensor *input,
                                      const Tensor *filters, const RgbyWindow *window,
                                      const bool *wanted) {
  return guarded([&] {
    const std::array<bool, 3> mask{wanted[0], wanted[1], wanted[2]};
    const std::array<int64_t, 2> none{0, 0};
    const auto bias = mask[2] ? at::OptionalIntArrayRef(filters->sizes().slice(0, 1))
                              : at::OptionalIntArrayRef();
    auto [to_input, to_filters, to_bias] = at::convolution_backward(
        *gradient, *input, *filters, bias, at::IntArrayRef(window->stride, 2),
        at::IntArrayRef(window->padding, 2), at::IntArrayRef(window->dilation, 2), false, none,
        window->groups, mask);
    out[0] = owned(to_input);
    out[1] = owned(to_filters);
    out[2] = owned(to_bias);
  });
}

// out: output, mean and unbiased variance of the batch, saved mean, saved scale, reserve.
char *rgby_torch_batch_norm(Tensor **out, int64_t *implementation, const Tensor *input,
                            const Tensor *gamma, const Tensor *beta, double epsilon) {
  return guarded([&] {
    // With momentum 1, the running statistics become those of the batch.
    auto mean = at::zeros_like(*gamma);
    auto variance = at::zeros_like(*gamma);
    auto [output, saved_mean, saved_scale, reserve, kind] = at::_batch_norm_impl_index(
        *input, *gamma, *beta, mean, variance, true, 1.0, epsilon, true);
    const Tensor results[] = {output, mean, variance, saved_mean, saved_scale, reserve};
    for (size_t i = 0; i < 6; ++i) {
      out[i] = owned(results[i]);
    }
    *implementation = kind;
  });
}

// saved: mean, scale and reserve. out: gradients of input, gamma and beta; null if not wanted.
char *rgby_torch_batch_norm_backward(Tensor **out, int64_t implementation, const Tensor *gradient,
                                     const Tensor *input, const Tensor *gamma,
                                     Tensor *const *saved, double epsilon, const bool *wanted) {
  return guarded([&] {
    const std::array<bool, 3> mask{wanted[0], wanted[1], wanted[2]};
    // The running statistics are not used in training mode, but must be defined.
    auto [to_input, to_gamma, to_beta] = at::_batch_norm_impl_index_backward(
        implementation, *input, gradient->contiguous(), *gamma, *saved[0], *saved[0], *saved[0],
        *saved[1], true, epsilon, mask, *saved[2]);
    out[0] = owned(to_input);
    out[1] = owned(to_gamma);
    out[2] = owned(to_beta);
  });
}

// Adadelta on `count` parameters, in place. tensors: all parameters, then all gradients, averages
// of squares, and averages of squared changes.
char *rgby_torch_adadelta(Tensor *const *tensors, size_t count, double rate, double rho,
                          double epsilon) {
  return guarded([&] {
    auto values = list(tensors, count);
    auto gradients = list(tensors + count, count);
    auto squares = list(tensors + 2 * count, count);
    auto changes = list(tensors + 3 * count, count);
    std::vector<Tensor> rest[4];
    for (size_t i = 0; i < count; ++i) {
      if (!one_pass({&values[i], &gradients[i], &squares[i], &changes[i]})) {
        rest[0].push_back(values[i]);
        rest[1].push_back(gradients[i]);
        rest[2].push_back(squares[i]);
        rest[3].push_back(changes[i]);
        continue;
      }
      float *value = values[i].data_ptr<float>();
      const float *gradient = gradients[i].data_ptr<float>();
      float *square = squares[i].data_ptr<float>();
      float *change = changes[i].data_ptr<float>();
      const float r = static_cast<float>(rho), one_less = 1.0f - r;
      const float e = static_cast<float>(epsilon), step = static_cast<float>(rate);
      at::parallel_for(0, values[i].numel(), CHUNK, [=](int64_t start, int64_t end) {
        for (int64_t j = start; j < end; ++j) {
          const float g = gradient[j];
          const float s = r * square[j] + one_less * (g * g);
          const float delta = std::sqrt(change[j] + e) / std::sqrt(s + e) * g;
          square[j] = s;
          change[j] = r * change[j] + one_less * (delta * delta);
          value[j] -= step * delta;
        }
      });
    }
    if (rest[0].empty()) {
      return;
    }
    at::_foreach_mul_(rest[2], rho);
    at::_foreach_addcmul_(rest[2], rest[1], rest[1], 1.0 - rho);
    auto roots = at::_foreach_add(rest[2], epsilon);
    at::_foreach_sqrt_(roots);
    auto deltas = at::_foreach_add(rest[3], epsilon);
    at::_foreach_sqrt_(deltas);
    at::_foreach_div_(deltas, roots);
    at::_foreach_mul_(deltas, rest[1]);
    at::_foreach_mul_(rest[3], rho);
    at::_foreach_addcmul_(rest[3], deltas, deltas, 1.0 - rho);
    at::_foreach_add_(rest[0], deltas, -rate);
  });
}

// Adam on `count` parameters, in place. tensors: all parameters, then all gradients, first moments
// and second moments. `step` counts from 1.
char *rgby_torch_adam(Tensor *const *tensors, size_t count, double rate, const double *constants,
                      int64_t step) {
  return guarded([&] {
    const double beta1 = constants[0], beta2 = constants[1], epsilon = constants[2];
    auto values = list(tensors, count);
    auto gradients = list(tensors + count, count);
    auto first = list(tensors + 2 * count, count);
    auto second = list(tensors + 3 * count, count);
    at::_foreach_mul_(first, beta1);
    at::_foreach_add_(first, gradients, 1.0 - beta1);
    at::_foreach_mul_(second, beta2);
    at::_foreach_addcmul_(second, gradients, gradients, 1.0 - beta2);
    // The same form as Burn's: both corrections in one factor, and epsilon scaled.
    const double power = static_cast<double>(step);
    const double root = std::sqrt(1.0 - std::pow(beta2, power));
    const double factor = root / (1.0 - std::pow(beta1, power));
    auto roots = at::_foreach_sqrt(second);
    at::_foreach_add_(roots, epsilon * root);
    auto deltas = at::_foreach_mul(first, factor);
    at::_foreach_div_(deltas, roots);
    at::_foreach_add_(values, deltas, -rate);
  });
}

// SGD without momentum on `count` parameters, in place. tensors: all parameters, then all gradients.
char *rgby_torch_sgd(Tensor *const *tensors, size_t count, double rate) {
  return guarded([&] {
    auto values = list(tensors, count);
    auto gradients = list(tensors + count, count);
    at::_foreach_add_(values, gradients, -rate);
  });
}

// averages ← averages + rate·(values − averages) on `count` tensors each.
char *rgby_torch_lerp(Tensor *const *tensors, size_t count, double rate) {
  return guarded([&] {
    auto averages = list(tensors, count);
    auto values = list(tensors + count, count);
    at::_foreach_lerp_(averages, values, rate);
  });
}

// Copies float32 values to a device. From page-locked memory, a GPU copies without making the
// caller wait.
char *rgby_torch_upload(Tensor **out, const float *values, const int64_t *shape, size_t rank,
                        int device_type, int device_index) {
  return guarded([&] {
    const at::IntArrayRef sizes(shape, rank);
    const at::Device device(static_cast<at::DeviceType>(device_type),
                            static_cast<at::DeviceIndex>(device_index));
    const bool pinned = device.is_cuda();
    auto staged = at::empty(sizes, at::TensorOptions().dtype(at::kFloat).pinned_memory(pinned));
    std::memcpy(staged.data_ptr<float>(), values, staged.numel() * sizeof(float));
    *out = owned(device.is_cpu() ? staged : staged.to(device, at::kFloat, pinned));
  });
}

void rgby_torch_switches(bool tf32, bool deterministic) {
  auto &context = at::globalContext();
  context.setAllowTF32CuDNN(tf32);
  context.setAllowTF32CuBLAS(tf32);
  context.setDeterministicCuDNN(deterministic);
  context.setBenchmarkCuDNN(!deterministic);
  if (deterministic) {
    // cuBLAS reads it when it is first used. A value that the user set stays.
    setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
    context.setDeterministicAlgorithms(true, true);
  }
}

// The version that this program was built with.
const char *rgby_torch_built_version() { return TORCH_VERSION; }

// libtorch's description of itself, for the caller to free.
char *rgby_torch_config() { return strdup(at::show_config().c_str()); }
}
