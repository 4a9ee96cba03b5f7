-- Turns of wrk: each under a key of its own, in the conversations that CONVERSATIONS lists.
local conversations, sent = {}, 0
for id in string.gmatch(os.getenv("CONVERSATIONS"), "[^,]+") do
  conversations[#conversations + 1] = id
end
local salt = tostring({}):sub(8) .. tostring(os.time())

request = function()
  sent = sent + 1
  local headers = {
    ["Content-Type"] = "application/json",
    ["Authorization"] = "Bearer " .. os.getenv("TOKEN"),
    ["Idempotency-Key"] = salt .. "-" .. sent,
  }
  local id = conversations[sent % #conversations + 1]
  return wrk.format("POST", nil, headers, '{"conversation_id":"' .. id .. '","message":"hello there"}')
end
