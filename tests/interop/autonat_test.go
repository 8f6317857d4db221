package interop

import (
	"strings"
	"testing"
	"time"
)

const (
	// Time allowed until Kubo knows its reachability. It uses AutoNAT v2 as soon as it is connected, and v1 after about 15
	// s, again after 90 s if it did not learn enough.
	verdict = 4 * patience
	// Time for which a peer must stay out of the tables: longer than a peer that enters them needs.
	out = 20 * time.Second
)

// newAminos returns four servers of the public DHT that know no other peer, and their public addresses. Each server is
// in an IP group of its own. Further arguments are those of `run`.
func newAminos(t *testing.T, arguments ...string) (servers []*dhtstoreNode, addresses []string) {
	t.Helper()
	for range 4 {
		server, ip4, _ := newAmino(t, arguments...)
		servers = append(servers, server)
		addresses = append(addresses, "/ip4/"+ip4+"/tcp/4001/p2p/"+server.id())
	}
	return servers, addresses
}

// inWanTables returns the count of servers that have the peer in their table of the public DHT.
func inWanTables(t *testing.T, servers []*dhtstoreNode, peer string) (count int) {
	t.Helper()
	for _, server := range servers {
		for _, r := range rowsOf(t, server.run("closest", "--local", "--format", "ndjson", peer)) {
			if r.Peer == peer && r.Dht == "wan" {
				count++
			}
		}
	}
	return count
}

func staysOutOfWanTables(t *testing.T, servers []*dhtstoreNode, peer string) {
	t.Helper()
	for deadline := time.Now().Add(out); time.Now().Before(deadline); time.Sleep(time.Second) {
		if count := inWanTables(t, servers, peer); count != 0 {
			t.Fatalf("the peer is in the tables of %d of our servers", count)
		}
	}
}

func (k *kuboNode) eventuallySays(reachability string) {
	k.t.Helper()
	deadline := time.Now().Add(verdict)
	for said := ""; !strings.Contains(said, "Reachability: "+reachability); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			k.t.Fatalf("not %s within %v: %s", reachability, verdict, said)
		}
		said = k.run("swarm", "addrs", "autonat")
	}
}

// MODE-1, RT-2: a Kubo with default settings (`Routing.Type` is "auto") serves the public DHT only once other peers
// report that they can dial it. Here only our servers can. A Kubo that they can dial becomes a server and enters our
// tables.
func TestAKuboThatWeCanDialBackBecomesAServerOfThePublicDht(t *testing.T) {
	servers, addresses := newAminos(t)
	kubo := newKuboJoining(t, addresses...)
	kubo.addPublicAddresses(t)
	kubo.removeAddress(t, kubo.ip+"/24")
	kubo.start()
	for _, server := range servers {
		kubo.hasInTable("wan", server.id())
	}
	kubo.eventuallySays("Public")
	kubo.eventually("it is in all our tables of the public DHT", func() bool {
		return inWanTables(t, servers, kubo.id()) == len(servers)
	})
}

// A Kubo that listens on another address than it announces cannot be dialled. Our servers report that, and it stays a
// client.
func TestAKuboThatWeCannotDialBackStaysAClientOfThePublicDht(t *testing.T) {
	servers, addresses := newAminos(t)
	kubo := newKuboJoining(t, addresses...)
	ip4, ip6 := kubo.addPublicAddresses(t)
	kubo.removeAddress(t, kubo.ip+"/24")
	kubo.removeAddress(t, ip6+"/16")
	kubo.run("config", "--json", "Addresses.Swarm", `["/ip4/127.0.0.1/tcp/4001"]`)
	kubo.run("config", "--json", "Addresses.Announce", `["/ip4/`+ip4+`/tcp/4001"]`)
	kubo.start()
	for _, server := range servers {
		kubo.hasInTable("wan", server.id())
	}
	kubo.eventuallySays("Private")
	staysOutOfWanTables(t, servers, kubo.id())
}

// Proves that the first Kubo learned of its reachability from our AutoNAT: with AutoNAT off, the same Kubo never does.
func TestAKuboThatNobodyTellsStaysAClientOfThePublicDht(t *testing.T) {
	servers, addresses := newAminos(t, "--set", "autonat.enabled=false")
	kubo := newKuboJoining(t, addresses...)
	kubo.addPublicAddresses(t)
	kubo.removeAddress(t, kubo.ip+"/24")
	kubo.start()
	for _, server := range servers {
		kubo.hasInTable("wan", server.id())
	}
	staysOutOfWanTables(t, servers, kubo.id())
	if said := kubo.run("swarm", "addrs", "autonat"); !strings.Contains(said, "Reachability: Unknown") {
		t.Fatal(said)
	}
}
