// A device type "pretend" for machines without an accelerator, on torch's PrivateUse1. Its memory is host memory. Every
// operation runs the CPU's kernel on CPU tensors that borrow the same bytes, so results equal the CPU's bit for bit.
// It refuses what CUDA refuses, and counts what CUDA would feel: launches of kernels, and the host's waits for them.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>
#include <torch/library.h>

#include <map>
#include <mutex>

namespace {

using at::Tensor;
using c10::IValue;
using OptionalTensor = std::optional<Tensor>;

constexpr c10::DeviceType PRETEND = c10::DeviceType::PrivateUse1;
constexpr c10::DispatchKeySet PRETEND_KEY(c10::DispatchKey::PrivateUse1);
constexpr c10::DispatchKeySet CPU_KEY(c10::DispatchKey::CPU);
constexpr int COUNT = 2;
thread_local c10::DeviceIndex active = 0;

c10::Device numbered(c10::DeviceIndex index) { return {PRETEND, index < 0 ? active : index}; }
c10::Device numbered(std::optional<c10::Device> device) { return numbered(device ? device->index() : -1); }

// ---- What is counted -----------------------------------------------------------------------------------------------

struct Ledger {
  std::mutex mutex;
  std::map<std::string, long> launches, waits;
  std::optional<py::object> on_wait;

  void launch(const std::string& name, long count = 1) {
    std::lock_guard<std::mutex> guard(mutex);
    launches[name] += count;
  }
  void wait(const std::string& name) {
    {
      std::lock_guard<std::mutex> guard(mutex);
      ++waits[name];
    }
    if (!on_wait) return;
    py::gil_scoped_acquire gil;
    (*on_wait)(name);
  }
};
Ledger& ledger() {
  static auto* kept = new Ledger();  // never destroyed: it holds a Python object
  return *kept;
}

// ---- Memory and devices --------------------------------------------------------------------------------------------

struct PretendAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr host = c10::GetCPUAllocator()->allocate(bytes);
    void* data = host.get();
    auto* owner = new c10::DataPtr(std::move(host));
    return {data, owner, [](void* kept) { delete static_cast<c10::DataPtr*>(kept); }, numbered(active)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};
PretendAllocator allocator;
REGISTER_ALLOCATOR(PRETEND, &allocator);

struct PretendGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return PRETEND; }
  c10::Device getDevice() const override { return numbered(active); }
  c10::Device exchangeDevice(c10::Device next) const override { return numbered(std::exchange(active, next.index())); }
  void setDevice(c10::Device next) const override { active = next.index(); }
  void uncheckedSetDevice(c10::Device next) const noexcept override { active = next.index(); }
  c10::DeviceIndex deviceCount() const noexcept override { return COUNT; }
  // There is one stream per device, on which everything has already happened.
  c10::Stream getStream(c10::Device of) const override {
    return c10::Stream(c10::Stream::DEFAULT, numbered(of));
  }
  c10::Stream getDefaultStream(c10::Device of) const override { return getStream(of); }
  c10::Stream getStreamFromGlobalPool(c10::Device of, bool) const override { return getStream(of); }
  c10::Stream getNewStream(c10::Device of, int) const override { return getStream(of); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void synchronizeStream(const c10::Stream&) const override { ledger().wait("synchronize"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { ledger().wait("synchronize"); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, PretendGuard);

// ---- Random numbers: those of a CPU generator that claims to live elsewhere ----------------------------------------

struct PretendGenerator final : c10::GeneratorImpl {
  at::Generator host;
  PretendGenerator(c10::DeviceIndex index, at::Generator host)
      : c10::GeneratorImpl(numbered(index), PRETEND_KEY), host(std::move(host)) {}
  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  void set_state(const c10::TensorImpl& state) override { host.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return host.unsafeGetGeneratorImpl()->get_state(); }
  GeneratorImpl* clone_impl() const override { return new PretendGenerator(device_.index(), host.clone()); }
};

at::Generator new_generator(c10::DeviceIndex index) {
  return at::make_generator<PretendGenerator>(index, at::detail::createCPUGenerator());
}
const at::Generator& default_generator(c10::DeviceIndex index) {
  static const std::vector<at::Generator> all = {new_generator(0), new_generator(1)};
  return all.at(numbered(index).index());
}
at::Generator host_of(const at::Generator& generator) {
  return static_cast<PretendGenerator*>(generator.unsafeGetGeneratorImpl())->host;
}

struct PretendHooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return COUNT; }
  c10::DeviceIndex getCurrentDevice() const override { return active; }
  void setCurrentDevice(c10::DeviceIndex next) const override { active = next; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex next) const override { return std::exchange(active, next); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex next) const override {
    return next < 0 ? active : std::exchange(active, next);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override { return default_generator(index); }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override { return new_generator(index); }
  at::Device getDeviceFromPtr(void*) const override { return numbered(active); }
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  bool isPinnedPtr(const void*) const override { return false; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::DataPtr fresh = allocator.allocate(bytes);
    if (size_t kept = std::min(storage.nbytes(), bytes)) std::memcpy(fresh.get(), storage.data(), kept);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(fresh));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

// ---- Borrowing: the same bytes as a tensor of the other kind -------------------------------------------------------

bool is_pretend(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == PRETEND; }

c10::Storage borrowed(const c10::Storage& from, c10::Device to) {
  c10::Allocator* own = to.is_cpu() ? c10::GetCPUAllocator() : &allocator;
  c10::DataPtr bytes(from.mutable_data(), new c10::Storage(from),
                     [](void* kept) { delete static_cast<c10::Storage*>(kept); }, to);
  return {c10::Storage::use_byte_size_t(), from.nbytes(), std::move(bytes), own, true};
}
Tensor placed_on(const Tensor& shaped_as, c10::Storage storage, c10::DispatchKeySet key) {
  Tensor made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), key, shaped_as.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(shaped_as.sizes(), shaped_as.strides());
  made.unsafeGetTensorImpl()->set_storage_offset(shaped_as.storage_offset());
  return made;
}

// The tensors of one operation, and the CPU tensors that stand for them while it runs.
class Loan {
 public:
  std::optional<c10::Device> device;

  Tensor lend(const Tensor& tensor) {
    if (!is_pretend(tensor)) return tensor;
    for (auto& [owner, guest] : lent_)
      if (owner.is_same(tensor)) return guest;
    if (!device) device = tensor.device();
    lent_.emplace_back(tensor, placed_on(tensor, borrowed(tensor.storage(), c10::kCPU), CPU_KEY));
    return lent_.back().second;
  }
  OptionalTensor lend(const OptionalTensor& tensor) { return tensor ? OptionalTensor(lend(*tensor)) : tensor; }

  // A result of the CPU's kernel: an argument itself, a view of one, or new.
  Tensor take(const Tensor& result) const {
    if (!result.defined() || !result.device().is_cpu()) return result;
    for (auto& [owner, guest] : lent_) {
      if (guest.is_same(result)) return owner;
      if (result.storage().data() && result.storage().data() == guest.storage().data())
        return placed_on(result, owner.storage(), PRETEND_KEY);
    }
    return placed_on(result, borrowed(result.storage(), numbered(device)), PRETEND_KEY);
  }

  // An argument such as out= may have been resized, or given new bytes.
  void settle() const {
    for (auto& [owner, guest] : lent_) {
      c10::TensorImpl* impl = owner.unsafeGetTensorImpl();
      if (owner.storage().data() != guest.storage().data())
        impl->set_storage_keep_dtype(borrowed(guest.storage(), owner.device()));
      if (owner.sizes() != guest.sizes() || owner.strides() != guest.strides())
        impl->set_sizes_and_strides(guest.sizes(), guest.strides());
    }
  }

 private:
  std::vector<std::pair<Tensor, Tensor>> lent_;
};

// ---- What CUDA refuses, and what it waits for ----------------------------------------------------------------------

bool begins(const std::string& text, std::initializer_list<const char*> starts) {
  return std::any_of(starts.begin(), starts.end(), [&](const char* start) { return text.rfind(start, 0) == 0; });
}
bool takes_indices(const std::string& name) {
  return begins(name, {"aten::index.", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index"});
}

// CUDA takes CPU scalars in pointwise operations, and CPU indices where something is indexed; nothing else.
void refuse_two_devices(const c10::OperatorHandle& op, const std::string& name, const std::vector<Tensor>& tensors,
                        const std::vector<Tensor>& indices) {
  auto first = std::find_if(tensors.begin(), tensors.end(), is_pretend);
  if (first == tensors.end()) return;
  bool scalars = op.hasTag(at::Tag::pointwise) || begins(name, {"aten::_foreach"}) || takes_indices(name);
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.device() == first->device()) continue;
    bool indexes = std::any_of(indices.begin(), indices.end(), [&](auto& one) { return one.is_same(tensor); });
    bool allowed = tensor.device().is_cpu() && ((tensor.dim() == 0 && scalars) || (indexes && takes_indices(name)));
    TORCH_CHECK(allowed, "Expected all tensors to be on the same device, but found at least two devices, ",
                first->device(), " and ", tensor.device(), ", in ", name);
  }
}

bool shape_depends_on_values(const std::string& name, const std::vector<Tensor>& indices) {
  bool masked = std::any_of(indices.begin(), indices.end(),
                            [](auto& one) { return is_pretend(one) && one.scalar_type() == at::kBool; });
  return masked || begins(name, {"aten::nonzero", "aten::masked_select", "aten::unique", "aten::_unique",
                                 "aten::bincount", "aten::equal", "aten::repeat_interleave.Tensor"});
}

bool same_layout(const Tensor& one, const Tensor& other) {
  if (one.sizes() != other.sizes() || !one.is_non_overlapping_and_dense()) return false;
  for (int64_t axis = 0; axis < one.dim(); ++axis)
    if (one.size(axis) != 1 && one.stride(axis) != other.stride(axis)) return false;
  return true;
}

// The fast kernels of CUDA take lists of tensors of equal layout; others are computed tensor by tensor.
long kernels(const std::string& name, const std::vector<IValue>& given) {
  if (!begins(name, {"aten::_foreach"})) return 1;
  std::vector<std::vector<Tensor>> lists;
  for (const IValue& value : given) if (value.isTensorList()) lists.push_back(value.toTensorVector());
  for (const auto& list : lists)
    for (size_t place = 0; place < list.size(); ++place)
      if (list.size() != lists[0].size() || !same_layout(list[place], lists[0][place]))
        return static_cast<long>(lists[0].size());
  return 1;
}

// ---- Every operation without a kernel of its own below -------------------------------------------------------------

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
