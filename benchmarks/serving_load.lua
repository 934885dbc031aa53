-- wrk: posts one body over and over, and prints what happened as one line of JSON at the end.
local file = io.open(os.getenv("BENCHMARK_BODY"), "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
file:close()
wrk.headers["Content-Type"] = os.getenv("BENCHMARK_TYPE")
wrk.headers["Authorization"] = os.getenv("BENCHMARK_AUTHORIZATION")
for name, value in string.gmatch(os.getenv("BENCHMARK_HEADERS"), "([^:\n]+): ([^\n]+)") do
  wrk.headers[name] = value
end

-- wrk calls response() in each thread, and done() in another Lua state, that sees them as userdata.
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() answered = 0; refused = 0 end
function response(status)
  if status == 200 then answered = answered + 1 else refused = refused + 1 end
end

function done(summary, latency)
  local ok, no = 0, 0
  for _, thread in ipairs(threads) do
    ok = ok + thread:get("answered")
    no = no + thread:get("refused")
  end
  local errors = summary.errors
  io.write(string.format(
    '\n{"answered": %d, "refused": %d, "errors": %d, "late": %d, "seconds": %.4f, ' ..
    '"p50": %.3f, "p99": %.3f}\n',
    ok, no, errors.connect + errors.read + errors.write, errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
