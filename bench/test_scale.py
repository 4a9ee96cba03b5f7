from bench.scale import Load

TOLD = """\
Running 12s test @ http://127.0.0.1:8080/v1/chat/completions
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.49s   412.31ms   2.93s    71.20%
    Req/Sec    38.52     22.13   130.00     66.67%
  Latency Distribution
     50%  850.00us
     75%   12.30ms
     90%    1.20s
     99%    1.50m
  421 requests in 12.02s, 1.01MB read
  Non-2xx or 3xx responses: 3
Requests/sec:     35.03
Transfer/sec:     86.21KB
"""


def test_reads_what_wrk_tells() -> None:
    assert Load.parse(TOLD) == Load(requests=421, failed=3, p50=0.85, p99=90_000)


def test_nothing_failed_where_wrk_does_not_say_so() -> None:
    assert Load.parse(TOLD.replace("  Non-2xx or 3xx responses: 3\n", "")).failed == 0
