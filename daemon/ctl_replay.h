/* ctl_replay.h - `egressctl replay --policy POLICY [-c CONFIG] [--json] PCAP`: what would this policy have found in a capture?
 *
 * The lib code of the engine, over an area in anonymous memory, with the packets' own timestamps as the clock.
 *
 * [RP1] Pairs      every packet from an address in `inside` to one that is not (or to an exit's host) is counted;
 *                  addresses alone decide, a capture has no interfaces. What the policy would have refused is in
 *                  bytes and packets too: the capture shows that it went. Tunnels count by their outer addresses.
 * [RP2] Complete   packets of pairs + skipped packets = packets of the file. Tables are made larger until none
 *                  overflows.
 * [RP3] Opener     known for TCP whose SYN or SYN+ACK was captured, else unknown: contracts that ask do not apply
 *                  then.
 * [RP4] Lines      --json: pairs sorted by src and dst, then skipped, then alerts in order of time.
 */
#pragma once

/* argv[0] is the verb. Prints; 0 done, 1 an error (said on stderr), 2 usage. */
int ctl_replay(int argc, char **argv);
