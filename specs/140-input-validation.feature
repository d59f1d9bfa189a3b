Feature: What comes from outside is checked before it is used, logged or put into a path (R3)
  So that a mistake is told whole and at once,
  and nobody steers the server with what is only data.

  Scenario Outline: All that is wrong with a request is said at once, on either face
    Given a server to be tried, with the lane <lane>
    When a chat is tried with {"temperature": 9, "top_p": "x", "n": 0, "stop": [""], "bogus": 1}
    Then it is refused with 400 "invalid_request" and details on "temperature, top_p, n, stop, bogus"

    Examples:
      | lane |
      | on   |
      | off  |

  Scenario: What is wrong deep inside of a request is named by its place
    Given a server to be tried
    When a chat is tried with {"messages": [{"role": "robot", "content": [{"type": "text"}]}, {"role": "user"}]}
    Then it is refused with 400 "invalid_request" and details on "messages[0].role, messages[0].content[0].text, messages[1].content"

  Scenario: An unknown parameter is an error, a known one without meaning here is taken
    Given a server to be tried
    When a chat is tried with {"mirostat": 2, "tools": [{"type": "function"}]}
    Then it is refused with 400 "unsupported_parameter" and details on "mirostat, tools"
    When a chat is tried with {"user": "u", "metadata": {"a": "b"}, "store": true, "parallel_tool_calls": false}
    Then it is answered

  Scenario: No value is repeated, wherever it stood
    Given a server to be tried
    When what cannot be is tried in each field, with the word "hunter2canary"
    Then each is refused, and no answer and no line of the log holds "hunter2canary"

  Scenario Outline: Traps of JSON are refused
    Given a server to be tried
    When the body <body> is tried
    Then it is refused with 400 "invalid_json"

    Examples:
      | body                      |
      | of 100000 arrays in each other |
      | of 30000 arrays side by side |
      | with NaN                  |
      | with Infinity             |
      | with a number of 5000 digits |
      | with a key twice          |
      | with half a character     |
      | in UTF-16                 |
      | with a byte order mark    |
      | cut off                   |
      | of two documents          |

  Scenario Outline: A name that hides something, or leads elsewhere, is no name of a model
    Given a server to be tried
    When a chat is tried with {"model": <name>}
    Then it is refused with 400 "invalid_request" and details on "model"

    Examples:
      | name                       |
      | "synthetic\u0000"          |
      | "\u001b[2Jsynthetic"       |
      | "synthetic\u000d\u000ax: y" |
      | "synthetic\u0085"          |
      | "syn\u202eciteht"          |
      | "../../etc/passwd"         |
      | "/etc/passwd"              |
      | "synthetic; rm -rf /"      |
      | "$(id)"                    |

  Scenario Outline: A correlation id that is none is refused, and never comes back
    Given a server to be tried
    When "/v1/models" is tried with the header "X-Correlation-ID: <id>"
    Then it is refused with 400 "invalid_request" and an id of the server's own

    Examples:
      | id                 |
      | two words          |
      | {{7*7}}            |
      | ../../x            |
      | %0d%0aSet-Cookie:a |

  Scenario: A good correlation id comes back, and one too long does not
    Given a server to be tried
    Then a correlation id of 64 letters comes back
    And a correlation id of 65 letters is refused

  Scenario: A query is refused by its names
    Given a server to be tried
    When "/v1/models?limit=3&after=x" is tried
    Then it is refused with 400 "unsupported_parameter" and details on "limit, after"

  Scenario Outline: A path leads to what it names, or nowhere
    Given a server to be tried
    When "<path>" is tried
    Then it is refused with 404 "<code>"

    Examples:
      | path                                            | code            |
      | /v1/models/..%2f..%2fetc%2fpasswd               | model_not_found |
      | /v1/models/%00                                  | model_not_found |
      | /v1/rbee/crashes/..%2f..%2frbee.toml            | not_found       |
      | /v1/rbee/crashes/%2e%2e                         | not_found       |
      | /v1//models                                     | not_found       |
      | /V1/models                                      | not_found       |

  Scenario: A body must be small enough, plain, and JSON by its header
    Given a server to be tried
    Then a body over 1 MiB is refused with 413 "body_too_large", told by its length or not
    And a body of "text/plain" is refused with 415 "unsupported_media_type"
    And a body that is compressed is refused with 415 "unsupported_media_type"

  Scenario: At its limit a value is taken, over it not
    Given a server to be tried
    When a chat is tried with 16 stop strings of 256 bytes
    Then it is answered
    When a chat is tried with 17 stop strings of 256 bytes
    Then it is refused with 400 "invalid_request" and details on "stop"
    When a chat is tried with 16 stop strings of 257 bytes
    Then it is refused with 400 "invalid_request" and details on "stop"

  Scenario: A prompt may hold any text
    Given a server to be tried
    When a chat is tried with {"messages": [{"role": "user", "content": "\u0000\u001b[2J\u202e\u2028\ud83d\udc1d {{7*7}} <|end|> $(id) ../"}]}
    Then it is answered

  Scenario Outline: A configuration with what its reader does not see, or does not mean, starts nothing
    Given the configuration '<text>'
    When rbee is started with it
    Then it exits with code 78 and says "<words>"

    Examples:
      | text                                   | words                         |
      | server.bind = "\u001b[2J"              | server.bind: holds control    |
      | model = [{ref = "file:a\u202eb"}]      | ref must hold no control      |
      | server.body_bytes_maxx = 1             | did you mean 'body_bytes_max' |
      | server.drain_s = inf                   | server.drain_s                |

  Scenario: The API describes what it is held to
    Given a server to be tried
    Then "/openapi.json" describes more than 20 operations, and "/docs" shows them without a script
