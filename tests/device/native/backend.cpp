// A device type "pretend" for machines without an accelerator, on torch's PrivateUse1. Its memory is host memory. Every
// operation runs the CPU's kernel on CPU tensors that borrow the same bytes, so results equal the CPU's bit for bit.
// It refuses what CUDA refuses, and counts what CUDA would feel: launches of kernels, and the host's waits for them.
// All operations run through ``run_on_host``, except for a few that a backend must bring itself.
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include "rules.h"

namespace {

void collect(const IValue& value, std::vector<Tensor>& into) {
  if (value.isTensor()) into.push_back(value.toTensor());
  else if (value.isTensorList()) for (const Tensor& one : value.toTensorVector()) into.push_back(one);
  else if (value.isOptionalTensorList())
    for (const OptionalTensor& one : value.toOptionalTensorVector()) if (one) into.push_back(*one);
}

IValue lend_value(Loan& loan, const IValue& value) {
  if (value.isTensor()) return loan.lend(value.toTensor());
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& one : value.toTensorVector()) list.push_back(loan.lend(one));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<OptionalTensor> list;
    for (const OptionalTensor& one : value.toOptionalTensorVector()) list.push_back(loan.lend(one));
    return list;
  }
  if (value.isDevice() && value.toDevice().type() == PRETEND) return c10::Device(c10::kCPU);
  return value;
}

IValue host_generator(const IValue& given, const c10::Device& device, const std::string& name) {
  at::Generator generator = given.isNone() ? default_generator(device.index()) : given.toGenerator();
  TORCH_CHECK(generator.device() == device, "Expected a '", device, "' generator device but found '",
              generator.device(), "', in ", name);
  return host_of(generator);
}

void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const std::string& overload = schema.operator_name().overload_name;
  const std::string name = overload.empty() ? schema.name() : schema.name() + "." + overload;
  const size_t count = schema.arguments().size();
  auto given = torch::jit::last(stack, count).vec();

  std::vector<Tensor> tensors, indices;
  std::optional<c10::Device> asked;
  for (const IValue& value : given) {
    collect(value, tensors);
    if (value.isOptionalTensorList()) collect(value, indices);
    if (value.isDevice() && value.toDevice().type() == PRETEND) asked = numbered(value.toDevice());
  }
  refuse_two_devices(op, name, tensors, indices);

  Loan loan;
  for (const Tensor& one : tensors) if (is_pretend(one) && !loan.device) loan.device = one.device();
  if (!loan.device) loan.device = numbered(asked);
  std::vector<IValue> arguments;
  for (size_t place = 0; place < count; ++place) {
    bool random = schema.arguments()[place].type()->str().rfind("Generator", 0) == 0;
    arguments.push_back(random ? host_generator(given[place], *loan.device, name) : lend_value(loan, given[place]));
  }
  // Views and changes of the shape launch nothing: their result shares memory with an argument that is not written.
  bool view = !schema.returns().empty() && schema.returns()[0].alias_info() && !schema.returns()[0].alias_info()->isWrite();
  if (!view && !begins(name, {"aten::resize_", "aten::is_pinned"})) ledger().launch(name, kernels(name, given));
  if (shape_depends_on_values(name, indices)) ledger().wait(name);

  torch::jit::drop(stack, count);
  for (IValue& value : arguments) torch::jit::push(stack, std::move(value));
  op.redispatchBoxed(CPU_KEY, stack);
  loan.settle();

  auto results = torch::jit::pop(*stack, schema.returns().size());
  for (IValue& result : results) {
    if (result.isTensor()) result = loan.take(result.toTensor());
    else if (result.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& one : result.toTensorVector()) list.push_back(loan.take(one));
      result = list;
    }
    torch::jit::push(stack, std::move(result));
  }
}

// ---- Operations that a backend must bring itself -------------------------------------------------------------------

Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<c10::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(numbered(device));
  return at::detail::empty_generic(size, &allocator, PRETEND_KEY, c10::dtype_or_default(dtype), format);
}
Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(numbered(device));
  return at::detail::empty_strided_generic(size, stride, &allocator, PRETEND_KEY, c10::dtype_or_default(dtype));
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  if (is_pretend(from) == is_pretend(to)) ledger().launch("copy");
  else if (is_pretend(to)) ledger().launch("copy to the device");
  else {
    ledger().launch("copy to the host");
    if (!non_blocking) ledger().wait("copy to the host");
  }
  Loan loan;
  loan.lend(to).copy_(loan.lend(from));
  return to;
}
Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  at::native::resize_(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}
at::Scalar local_scalar_dense(const Tensor& tensor) {
  ledger().wait("item");
  Loan loan;
  return at::_local_scalar_dense(loan.lend(tensor));
}

Tensor& set_part(Tensor& self, at::Storage storage, c10::SymInt offset, c10::SymIntArrayRef size,
                 c10::SymIntArrayRef stride) {
  c10::TensorImpl* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_storage_offset(offset.expect_int());
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
  return self;
}
Tensor& set_whole(Tensor& self, at::Storage storage) {
  c10::SymInt length(static_cast<int64_t>(storage.nbytes() / self.itemsize())), step(1);
  return set_part(self, std::move(storage), 0, length, step);
}
Tensor& set_to(Tensor& self, const Tensor& source) {
  return set_part(self, source.storage(), source.storage_offset(), source.sym_sizes(), source.sym_strides());
}

// Convolutions reach a backend by these names. They are composite on the CPU, so the fallback would not know them.
void refuse_another_device(const Tensor& x, const Tensor& other) {
  TORCH_CHECK(!other.defined() || x.device() == other.device(),
              "Expected all tensors to be on the same device, but found at least two devices, ", x.device(), " and ",
              other.device(), ", in convolution");
}
Tensor convolution(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, c10::SymIntArrayRef stride,
                   c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
                   c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  refuse_another_device(x, weight);
  if (bias) refuse_another_device(x, *bias);
  ledger().launch("aten::convolution");
  Loan loan;
  return loan.take(at::convolution_symint(loan.lend(x), loan.lend(weight), loan.lend(bias), stride, padding, dilation,
                                          transposed, output_padding, groups));
}
std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& weight, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups, std::array<bool, 3> wanted) {
  refuse_another_device(gradient, x);
  refuse_another_device(x, weight);
  ledger().launch("aten::convolution_backward");
  std::vector<c10::SymInt> bias = {transposed ? weight.sym_size(1) * groups : weight.sym_size(0)};
  Loan loan;
  auto [dx, dw, db] = at::convolution_backward_symint(
      loan.lend(gradient), loan.lend(x), loan.lend(weight), wanted[2] ? at::OptionalSymIntArrayRef(bias) : std::nullopt,
      stride, padding, dilation, transposed, output_padding, groups, wanted);
  return {loan.take(dx), loan.take(dw), loan.take(db)};
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
  m.impl("set_.source_Storage_storage_offset", set_part);
  m.impl("set_.source_Storage", set_whole);
  m.impl("set_.source_Tensor", set_to);
  // Otherwise torch splits these and calls their out= variants, which warn.
  for (const char* loss : {"mse_loss", "smooth_l1_loss", "huber_loss"})
    m.impl(loss, torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  // Otherwise torch computes lists tensor by tensor, which CUDA does in one launch.
  for (const c10::OperatorName& op : c10::Dispatcher::singleton().getAllOpNames())
    if (begins(op.name, {"aten::_foreach_"})) {
      std::string name = op.overload_name.empty() ? op.name : op.name + "." + op.overload_name;
      m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
    }
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

// Autocast with the lists of operations that CUDA has.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define IN_LOWER_PRECISION(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define IN_FLOAT32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define TO_FLOAT32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define TO_THE_WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(IN_LOWER_PRECISION)
  AT_FORALL_FP32(IN_FLOAT32)
  AT_FORALL_FP32_SET_OPT_DTYPE(TO_FLOAT32)
  AT_FORALL_PROMOTE(TO_THE_WIDEST)
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  at::RegisterPrivateUse1HooksInterface(new PretendHooks());
  m.attr("count") = COUNT;
  m.def("launches", [] { return ledger().launches; });
  m.def("waits", [] { return ledger().waits; });
  m.def("reset", [](std::optional<py::object> on_wait) {
    ledger().launches.clear();
    ledger().waits.clear();
    ledger().on_wait = std::move(on_wait);
  });
  m.def("current_device", [] { return static_cast<int>(active); });
  m.def("set_device", [](int index) { active = static_cast<c10::DeviceIndex>(index); });
  m.def("default_generator", [](int index) { return default_generator(static_cast<c10::DeviceIndex>(index)); });
}
