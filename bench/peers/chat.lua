-- Requests for wrk. TEMPLATE is the body; CONVERSATION and USER in it are filled in anew for each request.
local template, users = os.getenv("TEMPLATE"), tonumber(os.getenv("USERS"))
local has_conversation, has_user = template:find("CONVERSATION", 1, true), template:find("USER", 1, true)
local conversations = {}
for id in os.getenv("CONVERSATIONS"):gmatch("[^,]+") do conversations[#conversations + 1] = id end
local headers = {["Content-Type"] = "application/json"}
for name, value in os.getenv("HEADERS"):gmatch("([^:\n]+): ([^\n]+)") do headers[name] = value end
local key, n = os.getenv("KEY"), 0

request = function()
  n = n + 1
  local body = template
  if has_conversation then body = body:gsub("CONVERSATION", conversations[n % #conversations + 1]) end
  if has_user then body = body:gsub("USER", "u" .. n % users) end
  if key then headers["Idempotency-Key"] = key .. n end
  return wrk.format("POST", nil, headers, body)
end
