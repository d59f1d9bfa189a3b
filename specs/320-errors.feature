Feature: An error says what went wrong, and nothing else (R5)
  So that a client knows what to do, an operator finds the lines of the log that belong to it,
  and nobody learns of the box behind it.

  Scenario Outline: Each mistake has its status and code, in the one shape, and tells nothing of this box
    Given a server to be tried, with the lane <lane>
    When <mistake> is tried
    Then it is refused with <status> "<code>"
    And the connection goes on

    Examples:
      | mistake                               | lane | status | code                    |
      | a field of the wrong kind             | on   | 400    | invalid_request         |
      | a body that is no JSON                | on   | 400    | invalid_json            |
      | a field that nobody knows             | off  | 400    | unsupported_parameter   |
      | an answer that does not fit           | on   | 400    | context_length_exceeded |
      | an answer that does not fit           | off  | 400    | context_length_exceeded |
      | a foreign host                        | on   | 403    | forbidden_host          |
      | a foreign web page                    | on   | 403    | forbidden_origin        |
      | a path that leads nowhere             | on   | 404    | not_found               |
      | a model that is not there             | on   | 404    | model_not_found         |
      | a slot that is not there              | on   | 404    | worker_not_found        |
      | a method that is not taken            | on   | 405    | method_not_allowed      |
      | a body of another kind                | on   | 415    | unsupported_media_type  |
      | a deadline that has passed            | on   | 504    | deadline_exceeded       |

  Scenario Outline: What is no request, or too much of one, is refused before it is read, and the connection ends
    Given a server to be tried
    Then "<bytes>" is refused with <status> "invalid_request", and the connection ends

    Examples:
      | bytes                                                                       | status |
      | GET / HTTP/1.1%r%nHost: a%r%nHost : b%r%n%r%n                               | 400    |
      | GET /%0 HTTP/1.1%r%nHost: a%r%n%r%n                                         | 400    |
      | POST / HTTP/1.1%r%nHost: a%r%nContent-Length: 3%r%nTransfer-Encoding: chunked%r%n%r%n | 400 |
      | GET /%long HTTP/1.1%r%nHost: a%r%n%r%n                                      | 414    |
      | GET / HTTP/1.1%r%nHost: a%r%nX: %long%long%long%r%n%r%n                     | 431    |
      | CONNECT a:1 HTTP/1.1%r%nHost: a%r%n%r%n                                     | 501    |
      | GET / HTTP/3.0%r%nHost: a%r%n%r%n                                           | 505    |

  Scenario: A body that does not come is given up in time
    Given a server to be tried
    Then a body that stops in the middle is refused with 408 "body_timeout"

  Scenario: The log has the error under the id that the client got, and not what was asked
    Given a server to be tried
    When a chat with the prompt "my canary prompt" and the id "find-me-1" is refused
    Then the log has one line of "find-me-1", with the outcome "invalid_request"
    And no line of the log holds "canary"

  Scenario: An id of the server's own is as good to find it by
    Given a server to be tried
    When a path that leads nowhere is tried
    Then the log has one line of the answer's id, with the outcome "not_found"

  Scenario: A slot that an operator has stopped makes its model unavailable, and says when to try again
    Given a server with 1 worker
    When the operator stops the worker
    And a model whose worker is stopped is tried
    Then it is refused with 503 "model_unavailable"
    And readiness is 503 "unavailable"

  Scenario: A stream that fails in the middle ends with one error event and "[DONE]"
    Given a server to be tried
    When a stream of the id "broken-1" is given half of its time
    Then it ends with one event of the error "deadline_exceeded" and the id "broken-1", and "[DONE]"

  Scenario: A request that is cancelled is told so, and its worker goes on
    Given a server to be tried
    When a request of the id "cancel-me" is cancelled while it waits for its answer
    Then it is refused with 410 "cancelled"
    And a chat is answered

  Scenario: A state folder that cannot be used costs what it would keep, and no request
    Given a server whose state folder is a file
    Then a chat is answered
    And the log warns of "crash_reports_not_kept" and "audit_failing", with what follows from it

  Scenario: After all of this the server is as it was
    Given a server to be tried
    Then it has logged no bug, and its worker has ended never
