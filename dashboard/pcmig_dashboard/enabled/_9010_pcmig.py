# SPDX-License-Identifier: Apache-2.0
# For Horizon's folder openstack_dashboard/local/enabled.

FEATURE = "pcmig"

ADD_INSTALLED_APPS = ["pcmig_dashboard"]

ADD_JS_FILES = ["pcmig_dashboard/migration.js"]

EXTRA_TABS = {
    "openstack_dashboard.dashboards.admin.instances.tabs.AdminInstanceDetailTabs": (
        (900, "pcmig_dashboard.tabs.MigrationTab"),
    ),
}
