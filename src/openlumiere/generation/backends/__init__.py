"""The models that make clips, a file each family, behind one interface (`base.Backend`); `find` knows them all."""
