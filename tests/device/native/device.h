// The device itself: what it counts, its memory, its guard and its generators of random numbers.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>

#include <map>
#include <mutex>

namespace {

constexpr c10::DeviceType PRETEND = c10::DeviceType::PrivateUse1;
constexpr c10::DispatchKeySet PRETEND_KEY(c10::DispatchKey::PrivateUse1);
constexpr c10::DispatchKeySet CPU_KEY(c10::DispatchKey::CPU);
constexpr int COUNT = 2;
thread_local c10::DeviceIndex active = 0;

c10::Device numbered(c10::DeviceIndex index) { return {PRETEND, index < 0 ? active : index}; }
c10::Device numbered(std::optional<c10::Device> device) { return numbered(device ? device->index() : -1); }

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

// Random numbers are those of a CPU generator that claims to live elsewhere.
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

}  // namespace
