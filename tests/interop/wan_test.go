package interop

import (
	"strings"
	"testing"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multihash"
)

// newAmino starts a server of the public DHT, with private addresses and addresses that look public. Its bootstrap list
// is empty. Further arguments are those of `run`.
func newAmino(t *testing.T, arguments ...string) (server *dhtstoreNode, ip4, ip6 string) {
	t.Helper()
	server = newDhtstore(t)
	ip4, ip6 = server.addPublicAddresses(t)
	server.start(append([]string{"--set", "profile=amino", "--set", "bootstrap="}, arguments...)...)
	return server, ip4, ip6
}

// ask asks the server at this address, over the DHT with this extension. It returns the peers closest to an arbitrary
// key, and the providers of the multihash.
func ask(t *testing.T, address string, extension protocol.ID, content multihash.Multihash) (closest, providers []*peer.AddrInfo) {
	t.Helper()
	g := newGoNodeOf(t, newGoHost(t), extension, address, dht.ModeClient)
	closest, err := g.messenger.GetClosestPeers(g.context(), g.server.ID, peer.ID(multihashOf(t, "nobody")))
	if err != nil {
		t.Fatal(err)
	}
	providers, _, err = g.messenger.GetProviders(g.context(), g.server.ID, content)
	if err != nil {
		t.Fatal(err)
	}
	return closest, providers
}

// addressesOf returns the addresses of the peer in these answers.
func addressesOf(infos []*peer.AddrInfo, id peer.ID) (addresses []multiaddr.Multiaddr) {
	for _, info := range infos {
		if info.ID == id {
			addresses = append(addresses, info.Addrs...)
		}
	}
	return addresses
}

func all(addresses []multiaddr.Multiaddr, holds func(multiaddr.Multiaddr) bool) bool {
	for _, address := range addresses {
		if !holds(address) {
			return false
		}
	}
	return len(addresses) > 0
}

// Kubo takes part in both DHTs with one peer id, and announces all its addresses by identify.
func TestOnThePublicDhtKuboFindsWhatKuboPublishedAndNoPrivateAddressIsTold(t *testing.T) {
	server, server4, server6 := newAmino(t)
	publisher := newKuboJoining(t, server.address())
	publisher4, publisher6 := publisher.addPublicAddresses(t)
	// By default Kubo would be a client of the public DHT, because no peer here dials it back.
	publisher.run("config", "Routing.Type", "dhtserver")
	publisher.start()
	publisher.hasInTable("wan", server.id())
	publisher.hasInLanTable(server.id())
	server.eventually("the publisher is in our table", func() bool { return server.hasInTable(publisher.id()) })
	content := "of the public network\n"
	cid := publisher.add(content)
	publisher.run("routing", "provide", cid)
	server.eventually("the record is held with public addresses", func() bool {
		held := strings.Join(server.holds(cid, publisher.id()), "\n")
		return strings.Contains(held, "/ip4/"+publisher4+"/") && strings.Contains(held, "/ip6/"+publisher6+"/")
	})

	// SRV-3, PRV-7: each DHT gets only the addresses of its own scope.
	id, err := peer.Decode(publisher.id())
	if err != nil {
		t.Fatal(err)
	}
	for _, dht := range []struct {
		address   string
		extension protocol.ID
		belongs   func(multiaddr.Multiaddr) bool
	}{
		{"/ip4/" + server4 + "/tcp/4001/p2p/" + server.id(), "", manet.IsPublicAddr},
		{"/ip6/" + server6 + "/tcp/4001/p2p/" + server.id(), "", manet.IsPublicAddr},
		{server.address(), lan, manet.IsPrivateAddr},
	} {
		closest, providers := ask(t, dht.address, dht.extension, multihashOfCid(t, cid))
		for what, infos := range map[string][]*peer.AddrInfo{"closest peer": closest, "provider": providers} {
			if given := addressesOf(infos, id); !all(given, dht.belongs) {
				t.Errorf("the DHT %q gets these addresses of the %s: %v", dht.extension, what, given)
			}
		}
	}

	// Readers with a single public address. Only the public DHT returns an address that they can reach.
	for _, version := range []struct{ name, server, publisher string }{
		{"IPv4", "/ip4/" + server4, "/ip4/" + publisher4 + "/"}, {"IPv6", "/ip6/" + server6, "/ip6/" + publisher6 + "/"},
	} {
		reader := newKuboJoining(t, version.server+"/tcp/4001/p2p/"+server.id())
		reader4, reader6 := reader.addPublicAddresses(t)
		reader.removeAddress(t, reader.ip+"/24")
		if version.name == "IPv4" {
			reader.removeAddress(t, reader6+"/16")
		} else {
			reader.removeAddress(t, reader4+"/8")
		}
		reader.start()
		reader.hasInTable("wan", server.id())
		// The previous reader has the content too, and announces it.
		if found := reader.finds(cid); !strings.Contains(found, publisher.id()) {
			t.Fatalf("%s: Kubo found %q, want %s", version.name, found, publisher.id())
		}
		if found := reader.run("routing", "findpeer", publisher.id()); !strings.Contains(found, version.publisher) {
			t.Fatalf("%s: findpeer: %s", version.name, found)
		}
		if got := reader.fetches(cid, publisher.id()); got != strings.TrimSpace(content) {
			t.Fatalf("%s: fetched %q", version.name, got)
		}
	}
}

// RT-3: private addresses do not belong on the public network. A Kubo server without public addresses enters our table
// of the LAN DHT, and not the table of the public DHT.
func TestOnThePublicDhtAKuboWithPrivateAddressesEntersTheLanTableOnly(t *testing.T) {
	server, _, _ := newAmino(t)
	kubo := newKuboJoining(t, server.address())
	kubo.run("config", "Routing.Type", "dhtserver")
	kubo.start()
	kubo.hasInLanTable(server.id())
	var dhts []string
	server.eventually("Kubo is in our table", func() bool {
		dhts = nil
		for _, r := range rowsOf(t, server.run("closest", "--local", "--format", "ndjson", kubo.id())) {
			if r.Peer == kubo.id() {
				dhts = append(dhts, r.Dht)
			}
		}
		return dhts != nil
	})
	if len(dhts) != 1 || dhts[0] != "lan" {
		t.Fatalf("Kubo is in the tables of %v, want lan only", dhts)
	}
}
