"""Catalogs and their content in a place that many machines share: a folder, a web server, an object store.

    names/<name>           which catalog a name means; small, and replaced only by who knows what was there
    keys/<key>             the same for the key of a blueprint
    catalogs/<digest>      a catalog, and the packs that its blobs are in
    catalogs/<digest>.sig  its signature, if it was signed
    packs/<digest>         some of the blobs, about 16 MiB together
    garbage                what `holo remote gc` has found that nothing needs, and when

All but the first two and the last never change, so that any cache may keep them. There is no server of holo's own.
"""
