package interop

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// newKuboRelay starts a Kubo that relays for others, and returns its public address.
func newKuboRelay(t *testing.T) (address string) {
	t.Helper()
	relay := newKuboJoining(t)
	ip4, _ := relay.addPublicAddresses(t)
	relay.run("config", "--bool", "Swarm.RelayService.Enabled", "true")
	// It relays only once it knows that others can reach it, and no peer here reports that.
	relay.run("config", "Internal.Libp2pForceReachability", "public")
	relay.start()
	return "/ip4/" + ip4 + "/tcp/4001/p2p/" + relay.id()
}

// newDhtstoreRelay starts a dhtstore server that relays for others, and returns its public address.
func newDhtstoreRelay(t *testing.T) (address string) {
	t.Helper()
	relay, ip4, _ := newAmino(t, "--set", "relay.enabled=true")
	return "/ip4/" + ip4 + "/tcp/4001/p2p/" + relay.id()
}

// newKuboBehind starts a Kubo with only a private address, as behind a NAT. It can reach public addresses, and public
// nodes can reach it only through the relay.
func newKuboBehind(t *testing.T, relay string, joining ...string) *kuboNode {
	t.Helper()
	kubo := newKuboJoining(t, joining...)
	if err := ip("-n " + kubo.name + " route add 9.0.0.0/8 dev eth0"); err != nil {
		t.Fatal(err)
	}
	kubo.run("config", "Internal.Libp2pForceReachability", "private")
	kubo.run("config", "--bool", "Swarm.RelayClient.Enabled", "true")
	kubo.run("config", "--json", "Swarm.RelayClient.StaticRelays", `["`+relay+`"]`)
	kubo.start()
	kubo.eventually("the relay serves it", func() bool {
		announced, _ := kubo.try("id", "-f", "<addrs>")
		return strings.Contains(announced, relay+"/p2p-circuit")
	})
	return kubo
}

// newPublicKubo starts a Kubo with only a public address, which cannot reach private ones.
func newPublicKubo(t *testing.T, joining ...string) *kuboNode {
	t.Helper()
	kubo := newKuboJoining(t, joining...)
	_, ip6 := kubo.addPublicAddresses(t)
	kubo.removeAddress(t, kubo.ip+"/24")
	kubo.removeAddress(t, ip6+"/16")
	kubo.start()
	return kubo
}

// PRV-7: a provider behind a NAT announces the address of a relay, and others get that address from us. After the
// provider has left and our process was killed, they get it from our disk.
func TestAKuboBehindANatIsFoundByItsRelayAlsoAfterKill9(t *testing.T) {
	for name, newRelay := range map[string]func(*testing.T) string{"Kubo": newKuboRelay, "dhtstore": newDhtstoreRelay} {
		t.Run("through "+name, func(t *testing.T) {
			server, server4, _ := newAmino(t)
			joining := "/ip4/" + server4 + "/tcp/4001/p2p/" + server.id()
			relay := newRelay(t)
			publisher := newKuboBehind(t, relay, joining)
			publisher.hasInTable("wan", server.id())
			provider, circuit := publisher.id(), relay+"/p2p-circuit"
			cid := publisher.add("behind a NAT\n")
			publisher.run("routing", "provide", cid)
			// The record also has other addresses of the relay, and private ones from the LAN DHT.
			server.eventually("the record is held with the circuit", func() bool {
				return slices.Contains(server.holds(cid, provider), circuit)
			})
			if inWanTables(t, []*dhtstoreNode{server}, provider) > 0 {
				t.Fatal("a peer that can be reached only through a relay is in the table of the public DHT")
			}

			// A reader that knows only our server finds the provider and its address.
			finds := func(reader *kuboNode) {
				t.Helper()
				reader.hasInTable("wan", server.id())
				if found := reader.finds(cid); found != provider {
					t.Fatalf("Kubo found %q, want %s", found, provider)
				}
				// Kubo asks both DHTs, and shows the addresses of the answer that arrives first.
				reader.eventually("the circuit comes with the provider", func() bool {
					found, _ := reader.try("routing", "findprovs", "-v", cid)
					return strings.Contains(found, circuit)
				})
			}
			reader := newPublicKubo(t, joining)
			finds(reader)
			if found := reader.run("routing", "findpeer", provider); !strings.Contains(found, circuit) {
				t.Fatalf("findpeer: %s", found)
			}
			reader.run("swarm", "connect", "/p2p/"+provider)

			publisher.stop(syscall.SIGTERM)
			settle()
			server.stop(syscall.SIGKILL)
			server.start("--set", "profile=amino", "--set", "bootstrap=")
			finds(newPublicKubo(t, joining))
			// go's FindPeer ignores peers that it cannot dial. So the test reads the answers directly, from the public
			// DHT only.
			id, err := peer.Decode(provider)
			if err != nil {
				t.Fatal(err)
			}
			g := newGoNodeOf(t, newGoHost(t), "", joining, dht.ModeClient)
			providers, _, err := g.messenger.GetProviders(g.context(), g.server.ID, multihashOfCid(t, cid))
			if err != nil {
				t.Fatal(err)
			}
			closest, err := g.messenger.GetClosestPeers(g.context(), g.server.ID, id)
			if err != nil {
				t.Fatal(err)
			}
			for what, infos := range map[string][]*peer.AddrInfo{"provider": providers, "closest peer": closest} {
				given := addressesOf(infos, id)
				if !slices.ContainsFunc(given, func(a multiaddr.Multiaddr) bool { return a.String() == circuit }) {
					t.Errorf("the public DHT gets these addresses of the %s: %v", what, given)
				}
			}
			if given := addressesOf(providers, id); !all(given, manet.IsPublicAddr) {
				t.Errorf("the public DHT gets private addresses: %v", given)
			}
			// The operator's commands name the relay, too.
			if found, _ := server.try("findpeer", provider); !strings.Contains(found, circuit) {
				t.Errorf("our findpeer: %s", found)
			}
			if verdict, ok := server.try("diagnose", cid); ok || !strings.Contains(verdict, "through relays only") {
				t.Errorf("our diagnose: %s", verdict)
			}
		})
	}
}
