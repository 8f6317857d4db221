package interop

import (
	"strings"
	"testing"
	"time"
)

const (
	// Kubo asks by AutoNAT v2 as soon as it is connected; by v1 after some 15 s, and again after 90 s if it did not learn
	// enough.
	verdict = 4 * patience
	// Who is to stay out has been out for so long: more than what the one that enters takes.
	out = 20 * time.Second
)

// Four servers of the public DHT, each in an IP group of its own, that know nobody, and the public addresses by which
// they are joined. Further arguments are those of `run`.
func newAminos(t *testing.T, arguments ...string) (servers []*dhtstoreNode, addresses []string) {
	t.Helper()
	for range 4 {
		server, ip4, _ := newAmino(t, arguments...)
		servers = append(servers, server)
		addresses = append(addresses, "/ip4/"+ip4+"/tcp/4001/p2p/"+server.id())
	}
	return servers, addresses
}

// How many of the servers have the peer in their table of the public DHT.
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
			t.Fatalf("in the tables of %d of us", count)
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

// MODE-1, RT-2: whether a Kubo as it is installed (`Routing.Type` is "auto") serves the public DHT is for others to tell
// it. Here nobody can but servers of ours. The one that they can dial becomes a server and enters our tables.
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

// The one that they cannot dial, since it listens elsewhere than where it says, is told so and stays a client.
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

// That it was our AutoNAT which told the first: where it is off, the same Kubo never learns of it.
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
