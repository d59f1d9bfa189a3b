Feature: Who may come in
  So that nobody uses the box who does not belong there, and an operator can let in and throw out at any moment.

  Scenario: Without a key whoever reaches loopback is served, and the operator is told so once
    Given a server without a key
    When the models are asked for without a key
    Then the answer has the status 200
    And the log warns once of "no_keys"

  Scenario: From the first key on, made while the server runs, a key is asked for
    Given a server without a key
    When the operator makes a user key by command
    Then without a key the models are refused within 1 second
    And with that key the models are listed

  Scenario: The first key is never made over the wire
    Given a server without a key
    When an admin key is asked for over the wire
    Then the answer is 403 "permission_denied"

  Scenario: The first admin key goes into a file of its owner alone, and commands find it there
    Given a server without a key
    When the operator runs init
    Then the file of the admin key is closed to all others
    And without a key the models are refused within 1 second
    And the operator sees the workers by command

  Scenario Outline: A probe says its status without a key, and nothing else
    Given a server with keys
    When "<probe>" is asked for without a key
    Then the answer says its status and nothing else

    Examples:
      | probe           |
      | /health/live    |
      | /health/ready   |
      | /health/startup |

  Scenario Outline: What is not exactly one good key is refused
    Given a server with keys
    When the models are asked for with <credential>
    Then the answer is 401 "invalid_api_key"
    And the answer asks for a bearer key, and does not repeat what was sent

    Examples:
      | credential                     |
      | no key                         |
      | an empty header                |
      | a key of another scheme        |
      | a key without its scheme       |
      | a key in the query             |
      | a key as x-api-key             |
      | a key that is cut off          |
      | a key that nobody made         |
      | another secret for a known id  |
      | an expired key                 |

  Scenario: A key is taken whatever the case of its scheme
    Given a server with keys
    When the models are asked for with a key in a header of another case
    Then the answer has the status 200

  Scenario: A revoked key is refused within a second, and no worker notices
    Given a server with keys
    When a key that was good is revoked by command
    Then that key is refused within 1 second
    And the workers are those that there were

  Scenario Outline: A running stream ends with its key, and one of another goes on
    Given a server with keys
    And a stream of a key, and one of another
    When the first key <ends>
    Then the first stream ends with one error "invalid_api_key" within 2 seconds
    And the second stream goes on

    Examples:
      | ends       |
      | is revoked |
      | expires    |

  Scenario: A rotated key has the rights of the old one, which stays good for its grace
    Given a server with keys
    When a user key is rotated with a grace of an hour
    Then both keys are good, and do the same

  Scenario Outline: A role may do what it may, and no more
    Given a server with keys
    When a <role> asks to <deed>
    Then the answer has the status <status>

    Examples:
      | role     | deed             | status |
      | viewer   | see the workers  | 200    |
      | viewer   | generate         | 403    |
      | user     | generate         | 200    |
      | user     | restart a worker | 403    |
      | operator | read crashes     | 200    |
      | operator | list keys        | 403    |
      | admin    | list keys        | 200    |

  Scenario: A key is made over the API, is good at once, and is shown this once
    Given a server with keys
    When an admin makes a user key over the API
    Then with that key the models are listed
    And no listing shows that key

  Scenario: A key that is bound to models knows of no others
    Given a server with keys
    When a key that is bound to another model asks for an answer
    Then the answer is 404 "model_not_found"

  Scenario: A key with a limit is told what is left, and when to come back
    Given a server with keys
    When a key with 1 request a minute asks twice
    Then the answer is 429 "rate_limited"
    And the answer tells when to come back, and that 0 requests are left

  Scenario: Keys of a higher class are served before those who came earlier
    Given a server with keys, 1 place and a queue of 5
    And a long answer for a low key takes the place
    When requests of these keys wait behind it: low, normal, normal, high, high
    Then a request of a high key is refused, as the queue is full for all
    When the long answer is broken off
    Then they are answered in this order: 4, 5, 2, 3, 1
    And the operator makes a high key by command, and the listings tell its class

  Scenario: Under a crowd of high keys a normal one has its turn
    Given a server with keys, 1 place and a queue of 9
    And a long answer for a low key takes the place
    When requests of these keys wait behind it: normal, high, high, high, high, high
    And the long answer is broken off
    Then they are answered in this order: 2, 3, 4, 1, 5, 6

  Scenario: Who tries keys has to wait, and good keys do not notice
    Given a server with keys of its own
    When 40 keys that nobody made are tried
    Then some are told to come back later, and none is let in
    And a key that was good before is served at once
    And the audit log tells of them in a few lines

  Scenario: Keys outlive the server
    Given a server with keys of its own
    When the server that wants keys is stopped and started again
    Then a key that was good before is served at once
    And without a key the models are refused within 1 second

  Scenario: A broken store opens no door
    Given a server with keys of its own
    When the store is broken while the server is down
    Then without a key the models are refused within 1 second
    And the log says "store_replaced"

  Scenario Outline: Other machines may come only with keys, and with TLS or the operator's word
    When a server is to listen for all with <has> and <word>
    Then it exits with code 78 and says "<says>"

    Examples:
      | has    | word    | says             |
      | no key | consent | rbee keys create |
      | a key  | silence | allow_plaintext  |

  Scenario: No key stands in a log, or in the answer to another
    Given a server with keys
    When the models are asked for with a key in a header of another case
    Then no key stands in the log, the audit log or the store
