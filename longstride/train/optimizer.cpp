#include "longstride/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "longstride/ops/ordered_sum.h"
#include "longstride/train/memory.h"

namespace longstride {

namespace {

bool has_muon(const RunConfig& config) { return config.train.optimizer == "muon"; }

ParameterStore::Which with_second_moment(const RunConfig& config) {
  return has_muon(config) ? ParameterStore::Which::without_muon : ParameterStore::Which::all;
}

UpdateShares shares_of(const RunConfig& config, const std::vector<ParameterSpec>& table, int ranks,
                       int rank) {
  if (!config.compute.shard_optimizer || ranks == 1) return UpdateShares(table);
  return UpdateShares(table, has_muon(config), ranks, rank);
}

// The most that `bytes(range)` is for any share.
template <class Bytes>
int64_t most_of_shares(const RunConfig& config, const std::vector<ParameterSpec>& table, int ranks,
                       const Bytes& bytes) {
  const UpdateShares shares = shares_of(config, table, ranks, 0);
  int64_t most = 0;
  for (int rank = 0; rank < shares.ranks(); ++rank) most = std::max(most, bytes(shares.of(rank)));
  return most;
}

}  // namespace

bool Optimizer::has_parts(const RunConfig& config, int ranks) {
  return config.train.batch / batch_parts(config, ranks) > config.train.micro();
}

Optimizer::Optimizer(const RunConfig& config, Device device, DType product, int ranks, int rank)
    : config_(config),
      table_(parameter_table(config.model)),
      shares_(shares_of(config, table_, ranks, rank)),
      weights_(table_, device, DType::f32),
      gradients_(table_, device, DType::f32),
      first_(table_, device, DType::f32, ParameterStore::Which::all, shares_.own()),
      second_(table_, device, DType::f32, with_second_moment(config), shares_.own()) {
  context_.device = device;
  if (config.train.average > 0)
    average_ = ParameterStore(table_, device, DType::f32, ParameterStore::Which::all, shares_.own());
  if (product != DType::f32)
    products_ = ParameterStore(table_, device, product, ParameterStore::Which::products);
  parameters_ = by_role(config.model, weights_, products_);
  gradient_roles_ = by_role(config.model, gradients_, {});
  if (has_parts(config, ranks)) {
    part_ = ParameterStore(table_, device, DType::f32);
    part_roles_ = by_role(config.model, part_, {});
  }
  for (size_t i = 0; i < table_.size(); ++i) {
    const auto layers = static_cast<int64_t>(block_begins_.size());
    if (layers < config.model.layers
            ? table_[i].name.starts_with(fmt::format("blocks.{}.", layers))
            : layers == config.model.layers && !table_[i].name.starts_with("blocks."))
      block_begins_.push_back(gradients_.offset(i));
  }
  initialise(table_, static_cast<uint64_t>(config.train.seed), weights_);
  for (size_t i = 0; i < average_.tensors().size(); ++i)
    if (average_[i]) copy(weights_[i], average_[i]);
  refresh_products(weights_);
  const Moves moves =
      Optimizer::moves(config, table_, shares_.own(), {&weights_, &first_, &second_, &products_});
  const DType orthogonal = newton_schulz_dtype(device, product);
  update_table_ = UpdateTable(device, moves.adam, moves.muon, orthogonal,
                              parse_newton_schulz(config.train.newton_schulz));
  scratch_ = Arena(device, update_scratch_bytes(device, update_table_.matrices(), orthogonal));
  context_.scratch = &scratch_;
  if (!shares_.is_shared()) return;
  const Moves all = Optimizer::moves(config, table_, {}, {.weights = &weights_});
  squares_table_ = UpdateTable(device, all.adam, all.muon);
  squares_ = Buffer(device, ranks * squares_table_.chunks() * static_cast<int64_t>(sizeof(double)));
}

void Optimizer::join(std::shared_ptr<DeviceComm> devices, std::function<void()> wait) {
  devices_ = std::move(devices);
  wait_ = std::move(wait);
}

std::vector<int64_t> Optimizer::share_begins() const {
  return shares_.is_shared() ? shares_.begins(gradients_) : std::vector<int64_t>{};
}

bool Optimizer::finite() const {
  double squares = 0;
  for (const ParameterStore* store : {&weights_, &average_})
    for (const Tensor& tensor : store->tensors())
      if (tensor) squares += sum_of_squares(context_, tensor);
  return std::isfinite(squares);
}

AdamStep Optimizer::adam(int64_t step, double rate) const {
  AdamStep adam;
  adam.step = step;
  adam.rate = rate;
  adam.beta1 = config_.train.beta1, adam.beta2 = config_.train.beta2, adam.epsilon = config_.train.epsilon;
  adam.decay = config_.train.weight_decay;
  // A young average would be mostly the random start; it shortens its memory to a tenth of the steps so far.
  const double t = static_cast<double>(step);
  adam.ema = std::min(config_.train.average, (1 + t) / (10 + t));
  return adam;
}

MuonStep Optimizer::muon(double rate) const {
  return {.rate = rate, .momentum = config_.train.muon_momentum, .decay = config_.train.weight_decay};
}

void Optimizer::add_part() const {
  run(context_, OrderedSum{part_.flat().reshaped({1, part_.flat().count()}), 0, gradients_.flat()});
  fill_zero(part_.flat());
}

void Optimizer::update(UpdateControl* control) const {
  if (shares_.is_shared()) return update_share(control);
  update_parameters(
      context_, update_table_,
      {weights_.flat(), gradients_.flat(), first_.flat(), second_.flat(), average_.flat(), products_.flat()},
      control);
}

void Optimizer::update_share(UpdateControl* control) const {
  const std::vector<int64_t> begins = share_begins();
  const auto rank = static_cast<size_t>(shares_.rank());
  auto* const squares = static_cast<double*>(squares_.data());
  const int64_t chunks = squares_table_.chunks(), bytes = chunks * static_cast<int64_t>(sizeof(double));
  const auto row = [&](int of_rank) { return squares + of_rank * chunks; };
  run(context_, SquaresOfChunks{squares_table_, gradients_.flat(), begins[rank], begins[rank + 1],
                                row(shares_.rank())});
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (int other = 0; other < shares_.ranks(); ++other) {
    if (other == shares_.rank()) continue;
    out.push_back({other, row(shares_.rank()), bytes});
    in.push_back({other, row(other), bytes});
  }
  devices_->exchange(out, in);
  run(context_, SumSquares{squares_table_, squares, shares_.ranks(), control});
  run(context_, DecideUpdate{update_table_, control});
  const UpdateTensors tensors{weights_.flat(), gradients_.flat(), first_.flat(),
                              second_.flat(),  average_.flat(),   products_.flat()};
  run(context_, ApplyAdam{update_table_, tensors, control});
  if (!update_table_.matrices().empty()) run(context_, ApplyMuon{update_table_, tensors, control});
  gradients_.zero();  // those of the others too
  share(weights_.flat());
  // The products of the others' weights; this rank's own are written with them.
  if (products_.empty()) return;
  for (size_t i = 0; i < table_.size(); ++i)
    if (products_[i] && !shares_.own().has(i)) run(context_, Convert{weights_[i], products_[i]});
}

void Optimizer::share(const Tensor& whole) const {
  const std::vector<int64_t> begins = shares_.begins(weights_);
  const auto piece = [&](int rank) {
    const int64_t begin = begins[static_cast<size_t>(rank)], end = begins[static_cast<size_t>(rank) + 1];
    return Tensor(static_cast<float*>(whole.data) + begin, whole.dtype, {end - begin}, whole.device);
  };
  const Tensor own = piece(shares_.rank());
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (int other = 0; other < shares_.ranks(); ++other) {
    if (other == shares_.rank()) continue;
    if (own.count() > 0) out.push_back({other, own.data, own.bytes()});
    if (const Tensor theirs = piece(other); theirs.count() > 0)
      in.push_back({other, theirs.data, theirs.bytes()});
  }
  devices_->exchange(out, in);
}

void Optimizer::gather_average() {
  for (size_t i = 0; i < table_.size(); ++i)
    if (average_[i]) copy(average_[i], gradients_[i]);
  share(gradients_.flat());
  wait_();
}

const ParameterStore& Optimizer::kept(Kept kind) const {
  return kind == kFirst ? first_ : kind == kSecond ? second_ : average_;
}

bool Optimizer::keeps(Kept kind, size_t index) const {
  if (kind == kAverage) return config_.train.average > 0;
  return kind == kFirst || !has_muon(config_) || table_[index].muon_rows.empty();
}

void Optimizer::make_room() {
  whole_[kFirst] = ParameterStore(table_, {}, DType::f32);
  whole_[kSecond] = ParameterStore(table_, {}, DType::f32, with_second_moment(config_));
  if (config_.train.average > 0) whole_[kAverage] = ParameterStore(table_, {}, DType::f32);
}

void Optimizer::collect() {
  const bool gets = shares_.rank() == 0;
  if (gets) make_room();
  for (const Kept kind : {kFirst, kSecond, kAverage}) {
    std::vector<Outgoing> out;
    std::vector<Incoming> in;
    for (int rank = 0; rank < shares_.ranks(); ++rank) {
      const ParameterRange range = shares_.of(rank);
      for (size_t i = range.first; i < range.end; ++i) {
        if (!keeps(kind, i)) continue;
        if (rank == shares_.rank() && gets) copy(kept(kind)[i], whole_[kind][i]);
        if (rank == shares_.rank() && !gets) out.push_back({0, kept(kind)[i].data, kept(kind)[i].bytes()});
        if (rank != shares_.rank() && gets) in.push_back({rank, gradients_[i].data, gradients_[i].bytes()});
      }
    }
    devices_->exchange(out, in);
    wait_();
    if (!gets) continue;
    for (size_t i = shares_.own().end; i < table_.size(); ++i)
      if (keeps(kind, i)) copy(gradients_[i], whole_[kind][i]);
  }
  if (gets) gradients_.zero();
}

void Optimizer::distribute(Comm& comm) {
  int32_t there = whole_[kFirst].empty() ? 0 : 1;
  comm.broadcast(&there, sizeof(there));
  if (there == 0) return;
  for (const Kept kind : {kFirst, kSecond, kAverage})
    for (size_t i = 0; i < table_.size(); ++i) {
      if (!keeps(kind, i)) continue;
      const int64_t count = table_[i].count();
      const Buffer room({}, shares_.rank() == 0 ? 0 : count * size_of(DType::f32));
      const Tensor here =
          shares_.rank() == 0 ? whole_[kind][i].reshaped({count}) : Tensor(room.data(), DType::f32, {count});
      comm.broadcast(here.data, here.bytes());
      if (kept(kind)[i]) copy(here, kept(kind)[i].reshaped({count}));
    }
  free_room();
}

Optimizer::Moves Optimizer::moves(const RunConfig& config, const std::vector<ParameterSpec>& table,
                                  ParameterRange range, const Stores& stores) {
  Moves moves;
  const auto offset = [](const ParameterStore* store, size_t i) -> int64_t {
    return store != nullptr && !store->empty() && (*store)[i] ? store->offset(i) : -1;
  };
  for (size_t i = range.first; i < std::min(range.end, table.size()); ++i) {
    const ParameterSpec& spec = table[i];
    const int64_t at = std::max<int64_t>(0, offset(stores.weights, i)), copied = offset(stores.products, i),
                  kept = offset(stores.first, i);
    if (!has_muon(config) || spec.muon_rows.empty()) {
      moves.adam.push_back({at, spec.count(), spec.decay, copied, offset(stores.second, i), kept});
      continue;
    }
    const int64_t columns = spec.shape[1];
    int64_t before = 0;
    for (const int64_t rows : spec.muon_rows) {
      moves.muon.push_back(
          {at + before, rows, columns, copied < 0 ? -1 : copied + before, kept < 0 ? -1 : kept + before});
      before += rows * columns;
    }
  }
  return moves;
}

int64_t Optimizer::moment_bytes(const RunConfig& config, int ranks) {
  const std::vector<ParameterSpec> table = parameter_table(config.model);
  return most_of_shares(config, table, ranks, [&](ParameterRange range) {
    return ParameterStore::bytes(table, DType::f32, ParameterStore::Which::all, range) +
           ParameterStore::bytes(table, DType::f32, with_second_moment(config), range);
  });
}

int64_t Optimizer::average_bytes(const RunConfig& config, int ranks) {
  if (config.train.average <= 0) return 0;
  const std::vector<ParameterSpec> table = parameter_table(config.model);
  return most_of_shares(config, table, ranks, [&](ParameterRange range) {
    return ParameterStore::bytes(table, DType::f32, ParameterStore::Which::all, range);
  });
}

int64_t Optimizer::working_bytes(const RunConfig& config, Device device, DType product, int ranks) {
  const std::vector<ParameterSpec> table = parameter_table(config.model);
  const int64_t most = most_of_shares(config, table, ranks, [&](ParameterRange range) {
    const Moves moves = Optimizer::moves(config, table, range, {});
    return UpdateTable::bytes(device, moves.adam, moves.muon) +
           update_scratch_bytes(device, in_working_order(moves.muon), newton_schulz_dtype(device, product));
  });
  if (!shares_of(config, table, ranks, 0).is_shared()) return most;
  const Moves all = Optimizer::moves(config, table, {}, {});
  return most + UpdateTable::bytes(device, all.adam, all.muon) +
         ranks * UpdateTable::count_chunks(device, all.adam, all.muon) * static_cast<int64_t>(sizeof(double));
}

void Optimizer::refresh_products(const ParameterStore& from) const {
  if (products_.empty()) return;
  for (size_t i = 0; i < table_.size(); ++i)
    if (products_[i]) run(context_, Convert{from[i], products_[i]});
}

std::vector<NamedTensor> Optimizer::model_tensors() const {
  return (config_.train.average > 0 ? whole(kAverage) : weights_).named(table_, "");
}

std::vector<NamedTensor> Optimizer::state_tensors() const {
  LONGSTRIDE_CHECK(!whole(kFirst).empty(), "the ranks' shares of the optimizer were not collected");
  // Muon's momentum has a name of its own: neither optimizer can go on with the other's.
  std::vector<NamedTensor> result;
  for (size_t i = 0; i < table_.size(); ++i)
    result.push_back({(keeps(kSecond, i) ? "m." : "muon.") + table_[i].name, whole(kFirst)[i]});
  for (NamedTensor& tensor : whole(kSecond).named(table_, "v.")) result.push_back(std::move(tensor));
  if (config_.train.average > 0)
    for (NamedTensor& tensor : weights_.named(table_, "raw.")) result.push_back(std::move(tensor));
  return result;
}

std::vector<FlatState> Optimizer::flat_state() const {
  std::vector<FlatState> state;
  for (const auto& [name, store] : {std::pair{"the weights", &weights_},
                                    {"the first moments", &first_},
                                    {"the second moments", &second_},
                                    {"the averages", &average_}})
    if (!store->empty() && store->flat()) state.push_back({name, store->flat()});
  return state;
}

void Optimizer::loaded() { refresh_products(weights_); }

}  // namespace longstride
