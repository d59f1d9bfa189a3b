Feature: Nobody waits longer than agreed, and who leaves, leaves nothing running (R9, R14)
  So that a client knows by when it has its answer,
  and a place in the batch belongs to somebody who still wants it.

  Scenario: A client shortens its deadline, never extends it, and is told which one holds
    Given a server whose requests may take 10 seconds, and 60 if they ask for it
    Then a request is due in 10 seconds
    And a request with a timeout of 5 seconds is due in 5 seconds
    And a request with a deadline in 20 seconds is due in 20 seconds
    And a request with a timeout of 30 seconds and a deadline in 20 seconds is due in 20 seconds
    And a request with a timeout of 20 seconds and a deadline in 30 seconds is due in 20 seconds
    And a request with a timeout of 3600 seconds is due in 60 seconds
    And a request with a deadline in 86400 seconds is due in 60 seconds

  Scenario: A deadline that nobody can read, or that has passed, costs no worker a step
    Given a server with 1 worker
    Then a request with the header "X-Request-Timeout: soon" is refused with 400 "invalid_request"
    And a request with the header "X-Request-Timeout: -1" is refused with 400 "invalid_request"
    And a request with the header "X-Request-Deadline: 2026-01-01T00:00:00" is refused with 400 "invalid_request"
    And a request with the header "X-Request-Deadline: 2026-01-01T00:00:00Z" is refused with 504 "deadline_exceeded"
    And the worker has not made a step

  Scenario Outline: A deadline that passes before the first token is a 504, and the slot is free again
    Given a server with <engine>, the lane <lane>, and first tokens that take <first_token_s> seconds
    And its places are taken by <before>
    When a <kind> request with a timeout of 0.8 seconds is sent
    Then it ends with 504 "deadline_exceeded" within 0.5 seconds of its deadline
    And the worker works on <left> within 0.2 seconds

    Examples:
      | engine    | lane | first_token_s | before        | kind     | left          |
      | synthetic | on   | 5             | nobody        | streamed | nothing       |
      | synthetic | off  | 5             | nobody        | whole    | nothing       |
      | synthetic | on   | 0             | long answers  | whole    | long answers  |
      | bee-tiny  | on   | 0             | long answers  | streamed | long answers  |

  Scenario Outline: A deadline that passes later is an error event and "[DONE]", and the slot is free again
    Given a server with <engine>, the lane <lane>, and first tokens that take 0 seconds
    When a streamed request with a timeout of 0.8 seconds is sent
    Then it ends with the error event "deadline_exceeded" within 0.5 seconds of its deadline
    And the worker works on nothing within 0.2 seconds

    Examples:
      | engine    | lane |
      | synthetic | on   |
      | synthetic | off  |
      | bee-tiny  | on   |

  Scenario Outline: What a client that has gone had asked for is stopped
    Given a server with <engine>, the lane <lane>, and first tokens that take 0 seconds
    When a <kind> request is sent and worked on
    And the client goes away
    Then the worker works on nothing within 0.2 seconds
    And the log tells the outcome "client_gone"

    Examples:
      | engine    | lane | kind     |
      | synthetic | on   | streamed |
      | synthetic | off  | streamed |
      | synthetic | on   | whole    |
      | synthetic | off  | whole    |
      | bee-tiny  | on   | streamed |
      | bee-tiny  | on   | whole    |

  Scenario: A first token and the next one have times of their own
    Given a server that waits 0.8 seconds for a token, whose worker stops bringing them after 20 steps
    When a streamed request is sent and worked on
    Then it ends with the error event "deadline_exceeded", since "the next token" did not come
    And the worker works on nothing within 0.2 seconds
    When another streamed request is sent
    Then it ends with 504 "deadline_exceeded", since "the first token" did not come
    And the worker works on nothing within 0.2 seconds

  Scenario: The queue is bounded in tokens
    Given a server with 1 place and a queue of 1000 tokens
    When a streamed request is sent and worked on
    And a request for 900 tokens is sent behind it
    Then a request for 200 tokens is refused with 429 "queue_full" and a Retry-After
    When a request for 50 tokens is sent behind it
    Then 2 requests wait

  Scenario: Choices of one request are admitted together, and where nobody waits all of them
    Given a server with 2 places and a queue of 8 requests
    When a request for 16 choices of 100 tokens is sent
    Then 14 requests wait
    And a request for 1 token is refused with 429 "queue_full" and a Retry-After
    And the 16 choices are whole

  Scenario: Who cannot be reached in time is told so at once
    Given a server with 1 place that has answered 5 requests of 0.5 seconds
    When 6 requests of 0.5 seconds are sent
    Then one more with a timeout of 1 second is refused with 429 "queue_full" within 0.2 seconds
    And one more with a timeout of 30 seconds is answered

  Scenario: Retry-After is what the queue takes, within 30 %
    Given a server with 2 places that has answered 6 requests of 0.5 seconds
    When its queue of 20 is filled with requests of 0.5 seconds
    Then one more is refused with a Retry-After
    And that was the time in which the queue was served, give or take 30 %

  Scenario Outline: A request is cancelled by any of its names, once
    Given a server with synthetic, the lane <lane>, and first tokens that take 0 seconds
    When a <kind> request is sent and worked on
    And it is cancelled by its <name>
    Then it ends as cancelled
    And the worker works on nothing within 0.2 seconds
    And to cancel it by its <name> once more finds nothing

    Examples:
      | lane | kind     | name           |
      | on   | streamed | answer id      |
      | on   | streamed | correlation id |
      | on   | whole    | correlation id |
      | off  | streamed | answer id      |
      | off  | whole    | correlation id |

  Scenario: A request that waits in the queue is cancelled, too
    Given a server with synthetic, the lane on, and first tokens that take 0 seconds
    And its places are taken by long answers
    When a whole request is sent and waits
    And it is cancelled by its correlation id
    Then it ends as cancelled
    And the worker works on long answers within 0.2 seconds

  Scenario Outline: Who does not read is cut off, and is in nobody's way
    Given a server that keeps 64 KiB for a client, with the lane <lane>
    When 10 clients ask for streams that they do not read
    Then a chat is answered within 1 second, 20 times
    And the log tells the outcome "slow_client" of 10 requests
    And the worker works on nothing within 0.2 seconds

    Examples:
      | lane |
      | on   |
      | off  |

  Scenario Outline: Who does not read does not hold the shutdown
    Given a server that keeps 16384 KiB for a client, with the lane <lane>
    When 10 clients ask for streams that they do not read
    And the worker has made 400 steps
    And the server gets SIGTERM
    Then the server exits with code 0 within 12 seconds
    And no worker process is left

    Examples:
      | lane |
      | on   |
      | off  |
