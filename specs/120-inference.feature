Feature: The server answers as an OpenAI client expects (R3, R5, R9, R20, R22)

  Scenario: A chat completion
    Given a server with 1 worker
    When the prompt "[tokens=5]" is sent as a chat
    Then the answer is 200 with the text "0 1 2 3 4 "
    And the finish reason is "stop"
    And the usage counts 5 tokens of the answer
    And the answer bears a correlation id

  Scenario: The answer stops at max_tokens
    Given a server with 1 worker
    When the prompt "hello" is sent as a chat with {"max_tokens": 3}
    Then the answer is 200 with the text "0 1 2 "
    And the finish reason is "length"

  Scenario: The answer stops before a stop string
    Given a server with 1 worker
    When the prompt "hello" is sent as a chat with {"stop": ["4 5"], "max_tokens": 50}
    Then the answer is 200 with the text "0 1 2 3 "
    And the finish reason is "stop"

  Scenario: A stream has one chunk after the other, a finish reason, the usage and a last word
    Given a server with 1 worker
    When the prompt "[tokens=20]" is streamed as a chat with {"stream_options": {"include_usage": true}}
    Then the streamed text is the numbers from 0 to 19
    And the last chunks are a finish reason "stop", the usage of 20 tokens and "[DONE]"

  Scenario: A completion
    Given a server with 1 worker
    When the prompt "[tokens=4]" is sent as a completion
    Then the answer is 200 with the text "0 1 2 3 "

  Scenario: Several choices
    Given a server with 1 worker
    When the prompt "[tokens=3]" is sent as a chat with {"n": 3}
    Then the answer has 3 choices with the text "0 1 2 "
    And the usage counts 9 tokens of the answer

  Scenario: What does not fit the context is refused, not cut
    Given a server with 1 worker
    When the prompt "hello" is sent as a chat with {"max_tokens": 5000}
    Then the answer is 400 "context_length_exceeded" that names "messages"

  Scenario: All that is wrong is said at once, and no value is repeated
    Given a server with 1 worker
    When the prompt "canary" is sent as a chat with {"temperature": 9, "top_p": "x", "bogus": 1}
    Then the answer is 400 with details on "temperature", "top_p" and "bogus"
    And the answer does not hold "canary"

  Scenario: An unknown model
    Given a server with 1 worker
    When a chat is sent to the model "nobody"
    Then the answer is 404 "model_not_found" that names "model"

  Scenario: A client that goes away stops its generation
    Given a server with 1 worker
    When a request for 4000 tokens is streaming
    And the client goes away
    Then the worker has no open request within 0.5 seconds

  Scenario: A client that goes away while it waits for a whole answer stops its generation
    Given a server with 1 worker
    When a request for 4000 tokens is waiting for its whole answer
    And the client goes away
    Then the worker has no open request within 0.5 seconds

  Scenario: A full queue says so, and when to come back
    Given a server with 1 worker of batch size 1 and a queue of 1
    When 3 requests for 400 tokens are sent at once
    Then one of them is refused with 429 "queue_full" and a Retry-After
    And the others are answered

  Scenario: A deadline ends a request in time
    Given a server with 1 worker
    When a request for 4000 tokens with a timeout of 1 second is sent
    Then the answer is 504 "deadline_exceeded" within 1.5 seconds

  Scenario: A request whose worker dies before its first token is answered by the next
    Given a server with 1 worker whose first token takes 1 second
    When a request for 10 tokens is sent and the worker is killed before the first token
    Then the answer is 200 with the text "0 1 2 3 4 5 6 7 8 9 "

  Scenario: One request that crashes the worker does not end its neighbours' day
    Given a server with 2 workers that will crash when asked "please crash"
    When a request with the prompt "please crash" is sent
    Then the server becomes ready again within 10 seconds
    And a chat is answered

  Scenario: Twenty streams lose no token
    Given a server with 2 workers
    When 20 requests for 100 tokens are streamed at once
    Then each of the 20 streams is the numbers from 0 to 99

  Scenario: A program of this machine is answered over ZeroMQ as it is over HTTP
    Given a server with 1 worker
    When a local program streams the prompt "[tokens=20]"
    Then the local program is told the numbers from 0 to 19
    And the request is in the log as one of the local face

  Scenario: Models are listed
    Given a server with 1 worker
    Then "/v1/models" lists the model "synthetic"

  Scenario: A foreign host name is refused
    Given a server with 1 worker
    When "/v1/models" is asked for with the host "evil.example"
    Then the answer is 403 "forbidden_host"

  Scenario: A web page of another origin is refused
    Given a server with 1 worker
    When "/v1/models" is asked for with the origin "http://evil.example"
    Then the answer is 403 "forbidden_origin"
