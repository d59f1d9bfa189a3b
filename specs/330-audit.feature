Feature: The audit log
  So that an operator can tell afterwards who did what, and sees it if somebody has changed the answer.

  Scenario: It is on without a word of configuration, and ours alone
    Given an audited server
    When the audited server is stopped
    Then the audit folder and its files are closed to all others
    And the audit log tells "config.loaded", "supervisor.start" and "supervisor.stop", in this order
    And the audit log is found good

  Scenario Outline: A request leaves its begin and its end, never its text
    Given an audited server with the lane <lane>
    When a request with the prompt "the cat is in the bag" is answered, and a health probe
    And the audited server is stopped
    Then the audit log tells the begin and the end of 1 request under the id that the client got
    And the audit log does not hold "the cat is in the bag", nor the answer
    And the audit log is found good

    Examples:
      | lane |
      | on   |
      | off  |

  Scenario: A request that is refused leaves its end, too
    Given an audited server
    When a request for a model that is not there is refused
    And the audited server is stopped
    Then the audit log tells that the request was denied as "model_not_found"

  Scenario: A stream that the shutdown cuts was tried
    Given an audited server that does not drain
    When a request for 4000 tokens is streaming
    And the audited server is stopped
    Then the audit log tells that the request failed as "draining" after some tokens

  Scenario: The chain goes on when the server is started again
    Given an audited server
    When the audited server is stopped
    And the audited server is started once more
    And the audited server is stopped
    Then the audit log tells 2 starts of a server
    And the audit log is found good

  Scenario: The chain goes on from file to file, and the oldest files go
    Given an audited server that keeps 3 files of at most 4 KiB
    When 30 requests are answered
    And the audited server is stopped
    Then the audit log has 3 files and begins after entry 1
    And the audit log is found good

  Scenario Outline: What somebody does to the files is found, and where
    Given an audit log of several files, whose server was stopped
    When somebody <does this>
    Then the first bad entry is found to be entry <entry>, since it is <flaw>

    Examples:
      | does this                                 | entry              | flaw      |
      | flips a bit of entry 7                    | 7                  | altered   |
      | deletes entry 7                           | 7                  | missing   |
      | inserts a copy of entry 3 before entry 7  | 7                  | misplaced |
      | swaps entry 7 and entry 8                 | 7                  | missing   |
      | cuts off the last 2 entries               | one before last    | cut_off   |
      | puts another log in place of the first file | of the second file | unlinked  |
      | puts all files back to an older state     | after the old ones | cut_off   |
      | puts all files and the anchor back to an older state | after the old ones | cut_off |

  Scenario: Who rewrites the end of a sealed log without its secret is found at the first entry
    Given a sealed audit log, whose server was stopped
    When somebody rewrites it from entry 4 on, with hashes that fit, and takes the anchor away
    Then the first bad entry is found to be entry 4, since it is bad_seal

  Scenario: A line that a crash tore is set right, and told
    Given an audited server
    When the server is killed
    And half a line stands at the end of the audit log
    Then the audit log is found torn at its end
    When the audited server is started once more
    And the audited server is stopped
    Then the audit log tells the length and the hash of what was torn
    And the audit log is found good

  Scenario: A full disk stops no request, and what is recorded when there is room again is in order
    Given an audited server whose audit log lies on a small disk
    When the disk of the audit log is filled, and 50 requests are answered
    Then the log says "audit_failing" within 5 seconds
    And a chat is answered
    When there is room again on the disk of the audit log
    Then the log says "audit_healed" within 5 seconds
    And the audit log on the small disk is found good

  Scenario: Two servers with one audit log write one chain
    Given an audited server
    When a second server with the same state is started
    And both servers answer 20 requests each at the same time
    And both servers are stopped
    Then the audit log tells 2 starts of a server
    And the audit log tells the begin and the end of 40 requests
    And the audit log is found good

  Scenario: A secret that others can read seals nothing
    Given a secret file for the audit log that others may read
    When a server is started with it
    Then it exits with code 78 and says "must be closed to others"

  Scenario: A log can be verified and read while it is written
    Given an audited server
    When 20 requests are answered
    Then the audit log is found good while requests are answered
    And the last entry is shown, and the entries of one kind are exported
