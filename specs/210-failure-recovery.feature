Feature: A worker's end costs a client some seconds, not its answer (R5, R6, R9, R20)
  So that a client need not know that workers die,
  and one request that kills them does not take the others along.

  Scenario: A stream whose worker is killed goes on at the sibling
    Given a server with 2 workers
    When a request for 300 tokens is streaming
    And the worker that has it is killed
    Then the stream ends whole with 300 tokens
    And the log says that 1 of 1 interrupted requests went on

  Scenario: A stream whose only worker is killed goes on when that is restarted
    Given a server with 1 worker
    When a request for 300 tokens is streaming
    And the worker that has it is killed
    Then the stream ends whole with 300 tokens

  Scenario: An answer that is not streamed goes on as well
    Given a server with 1 worker
    When a request for 300 tokens is waiting for its whole answer
    And the worker that has it is killed
    Then the whole answer has 300 tokens and counts them

  Scenario: A stream whose worker stops answering goes on
    Given a server with 1 worker and beats every 0.5 seconds
    When a request for 300 tokens is streaming
    And the worker that has it is frozen
    Then the stream ends whole with 300 tokens

  Scenario: Several choices of one request go on
    Given a server with 2 workers
    When a request for 4 choices of 300 tokens is streaming
    And the worker that has it is killed
    Then each of the 4 choices is whole with 300 tokens

  Scenario: Many streams lose no token when one worker after the other is killed
    Given a server with 2 workers
    When 20 requests for 1600 tokens are streamed at once
    And one worker is killed, and the other one when the first is back
    Then each of the 20 streams is the numbers from 0 to 1599

  Scenario: A deadline holds while an answer waits for a worker
    Given a server with 1 worker that takes 3 seconds to load
    When a request for 4000 tokens with a timeout of 2 seconds is streaming
    And the worker that has it is killed
    Then the stream ends with the error "deadline_exceeded" within 3 seconds of its start

  Scenario: What waits for a worker that will not come is told so
    Given a server with 1 worker that is not restarted more than once
    When a request for 4000 tokens is streaming
    And the worker that has it is killed, and so is the next as it starts
    Then the stream ends with the error "model_unavailable"

  Scenario Outline: A request that ends its worker twice is quarantined
    Given a server with 1 worker and beats every 0.5 seconds that will <fault> when asked "please die"
    When a request with the prompt "please die" is sent
    Then the stream ends with the error "request_quarantined"
    And 2 workers have ended
    When the same request is sent again
    Then the answer is 422 "request_quarantined"
    And 2 workers have ended
    And the server becomes ready again within 10 seconds
    And a chat is answered

    Examples:
      | fault         |
      | crash         |
      | exit          |
      | garbage       |
      | hang_with_gil |

  Scenario Outline: The neighbours of a request that kills workers are answered whole
    Given a server with <slots> worker(s) that will crash after 3 steps when asked "please die"
    When 7 requests for 400 tokens are streamed at once
    And a request with the prompt "please die" is streaming beside them
    Then the last stream ends with the error "request_quarantined"
    And each of the other 7 streams is the numbers from 0 to 399
    And 2 workers have ended

    Examples:
      | slots |
      | 1     |
      | 2     |

  Scenario: A crash that is a request's doing is not held against its slot
    Given a server with 1 worker that is not restarted more than once, and will crash when asked "please die"
    When a request with the prompt "please die 1" is sent
    Then the stream ends with the error "request_quarantined"
    And the server becomes ready again within 10 seconds
    When a request with the prompt "please die 2" is sent
    Then the stream ends with the error "request_quarantined"
    And the server becomes ready again within 10 seconds
