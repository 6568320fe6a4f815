#include "longstride/train/ranks.h"

#include <exception>
#include <optional>
#include <utility>

#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/mapped_file.h"
#include "longstride/base/threads.h"
#include "longstride/base/toml.h"
#include "longstride/run/describe_device.h"
#include "longstride/run/run_data.h"
#include "longstride/train/rank_log.h"

namespace longstride {

namespace {

struct Order {
  enum Kind : int32_t { prepare, join, share, step, validate, collect, end };
  Kind kind = end;
  int64_t text = 0;  // bytes of the text that follows
  StepOrder of_step;
};

void send(Comm& comm, Order::Kind kind, const std::string& text = {}, const StepOrder& of_step = {}) {
  Order order{kind, static_cast<int64_t>(text.size()), of_step};
  comm.broadcast(&order, sizeof(order));
  if (order.text > 0) comm.broadcast(const_cast<char*>(text.data()), order.text);
}

std::pair<Order, std::string> receive(Comm& comm) {
  Order order;
  comm.broadcast(&order, sizeof(order));
  std::string text(static_cast<size_t>(order.text), '\0');
  if (order.text > 0) comm.broadcast(text.data(), order.text);
  return {order, text};
}

// Throws Error on all ranks if one of them differs from rank 0.
void agree_on(Comm& comm, const char* what, const std::string& mine) {
  const std::vector<std::string> all = comm.gather(mine);
  for (size_t rank = 1; rank < all.size(); ++rank)
    LONGSTRIDE_CHECK(all[rank] == all[0], "rank {} has another {} than rank 0", rank, what);
}

void agree_on(Comm& comm, const RankIdentity& identity, const std::string& data) {
  agree_on(comm, "longstride", identity.program);
  agree_on(comm, "configuration", identity.config);
  agree_on(comm, "data", data);
}

std::string begun(const RunConfig& config, int ranks) {
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  const Device device = parse_device(config.compute.device);
  return fmt::format("process {} on {}, {} ranks, {}", getpid(), host, ranks, describe_device(device));
}

}  // namespace

RankIdentity identity_of_rank(const RunConfig& config) {
  const MappedFile program("/proc/self/exe");
  return {checksum_of(program.data(), program.bytes()), config.to_toml(false)};
}

Leader::~Leader() {
  if (comm_.size() == 1) return;
  try {
    send(comm_, Order::end);
  } catch (const std::exception&) {
    // The others are gone.
  }
}

void Leader::prepare(const RankIdentity& identity, const RunConfig& config, const Splits& splits) {
  if (comm_.size() == 1) return;
  // First what may fail here: from the order on, the others wait for answers.
  const std::string data = data_digest(splits);
  // "auto" must not mean another kind of device elsewhere.
  RunConfig chosen = config;
  chosen.compute.device = name_of(parse_device(config.compute.device).kind);
  send(comm_, Order::prepare, chosen.to_toml(false));
  agree(comm_, "");
  agree_on(comm_, identity, data);
}

void Leader::join(Trainer& trainer) {
  if (comm_.size() == 1) return;
  send(comm_, Order::join);
  trainer.join_ranks();
}

void Leader::share(Trainer& trainer) {
  if (comm_.size() == 1) return;
  send(comm_, Order::share);
  trainer.share_weights();
}

void Leader::tell(const StepOrder& order) {
  if (comm_.size() > 1) send(comm_, Order::step, {}, order);
}

void Leader::validate(const Trainer& trainer, int64_t max_bytes) {
  StepOrder bytes;
  bytes.step = max_bytes;
  if (trainer.validates_together()) send(comm_, Order::validate, {}, bytes);
}

void Leader::collect(Trainer& trainer) {
  if (!trainer.shares_optimizer()) return;
  send(comm_, Order::collect);
  trainer.collect();
}

namespace {
void follow(Comm& comm, const RankIdentity& identity, const std::string& error, RankLog& log) {
  const InterruptGuard signals;  // whoever leads has them too, and decides
  std::optional<Splits> splits;
  std::optional<Trainer> trainer;
  for (;;) {
    const auto [order, text] = receive(comm);
    switch (order.kind) {
      case Order::end:
        return;
      case Order::prepare: {
        std::string why = error, data;
        try {
          if (why.empty()) {
            RunConfig config;
            read_toml_text(text, "rank 0's configuration", config.fields());
            set_threads(static_cast<int>(config.compute.threads));
            splits.emplace(open_run_data(config.data, ""));
            data = data_digest(*splits);
            trainer.emplace(config, *splits, comm);
            log.write(begun(config, comm.size()));
          }
        } catch (const std::exception& failure) {
          why = failure.what();
          log.write(why);
        }
        // What is wrong is said by rank 0, who ends the work.
        try {
          agree(comm, why);
          agree_on(comm, identity, data);
        } catch (const Error&) {
          trainer.reset();
        }
        break;
      }
      case Order::join:
        try {
          trainer->join_ranks();
        } catch (const RankLost&) {
          throw;
        } catch (const Error&) {
          // Rank 0 throws the same, and ends.
        }
        break;
      case Order::share:
        trainer->share_weights();
        break;
      case Order::validate:
        trainer->validate(order.of_step.step);
        break;
      case Order::collect:
        trainer->collect();
        break;
      case Order::step:
        try {
          trainer->take(order.of_step);
          log.step(trainer->state().step, trainer->stage().train.log_every);
        } catch (const RankLost&) {
          throw;
        } catch (const Error& failure) {
          log.write(failure.what());  // Rank 0 throws the same, and goes on or ends.
        }
        break;
    }
  }
}
}  // namespace

void follow(Comm& comm, const RankIdentity& identity, const std::string& error,
            const std::string& run_directory) {
  RankLog log(run_directory, comm.rank());
  try {
    follow(comm, identity, error, log);
    log.write("ended with rank 0");
  } catch (const std::exception& failure) {
    log.write(fmt::format("ended: {}", failure.what()));
    throw;
  }
}

}  // namespace longstride
