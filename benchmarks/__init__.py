"""How fast umbel is, against its peers, in one run: `python -m benchmarks`.

* Each peer runs in a process of its own, fresh in each round; one load generator, the
  same for all, plays its clients from another process, on another core if there is one.
* Rounds are interleaved, every other one in reverse order, so that whatever else the
  machine does meets all peers alike.
* The unit is processor time of the process under test, all its threads, user and
  system, per operation: `docs/performance.md` says why, and what the figures are.
"""
